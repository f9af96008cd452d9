"""What a model is shown: pictures, records and noise, and how they are divided."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cortex.errors import UserError
from cortex.protos import example_pb2, meta_graph_pb2, prediction_log_pb2, types_pb2
from cortex.tensors import to_proto
from cortex.tfrecord import encode
from export.calibration import Calibration, gather

SHAPES = {"image": ("DT_UINT8", [-1, 224, 224, 3]), "floats": ("DT_FLOAT", [-1, 4]), "text": ("DT_FLOAT", [-1, -1])}


def _signature(kind: str) -> meta_graph_pb2.SignatureDef:
    name, sizes = SHAPES[kind]
    declared = meta_graph_pb2.SignatureDef()
    declared.inputs["input"].dtype = types_pb2.DataType.Value(name)
    for size in sizes:
        declared.inputs["input"].tensor_shape.dim.add(size=size)
    return declared


def _gather(path: Path | str, kind: str = "image", subset: int = 8) -> tuple[Calibration, list[str]]:
    told: list[str] = []
    return gather(str(path), _signature(kind), subset, told.append), told


def _colors(found: Calibration) -> list[int]:
    """Return the red of each sample's middle, those to calibrate on first."""
    return [int(sample["input"][0, 112, 112, 0]) for sample in found.samples + found.held_out]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in two folders, each of one color; the red of number k is 10 k."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        folder = root / ("n01" if number < 10 else "n02")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (300, 256), (10 * number, 0, 0)).save(folder / f"{number:02}.PNG", "PNG")
    return root


def test_folders_that_are_links(pictures: Path, tmp_path: Path) -> None:
    """Pictures in a folder that is a link are seen like others, once where a link leads back."""
    (tmp_path / "n01").symlink_to(pictures / "n01")
    (tmp_path / "again").symlink_to(tmp_path)
    found, _ = _gather(tmp_path)
    assert sorted(_colors(found)) == [10 * number for number in range(10)]


def _example(data: bytes) -> bytes:
    example = example_pb2.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(data)
    return example.SerializeToString()


def _log(array: Any, alias: str = "input") -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs[alias].CopyFrom(to_proto(array))
    return log.SerializeToString()


def _write(path: Path, *records: bytes) -> Path:
    path.write_bytes(b"".join(map(encode, records)))
    return path


@pytest.mark.parametrize(("subset", "expected"), [(8, (8, 8)), (12, (12, 8)), (16, (16, 4)), (300, (16, 4))])
def test_a_part_is_held_out(pictures: Path, subset: int, expected: tuple[int, int]) -> None:
    """As many are held out as calibrate, where there are enough; a fifth at least."""
    found, _ = _gather(pictures, subset=subset)
    assert (len(found.samples), len(found.held_out)) == expected
    assert len(set(_colors(found))) == sum(expected)


def test_folders_are_mixed(pictures: Path) -> None:
    """Samples come from every folder, and are the same ones every time."""
    first, again = (_colors(_gather(pictures)[0]) for _ in range(2))
    assert first == again
    assert 2 <= sum(color < 100 for color in first[:8]) <= 6


def test_broken_pictures_are_skipped_and_told(pictures: Path, tmp_path: Path) -> None:
    """A picture that cannot be decoded is left out; the first is named, with the reason, and all are counted."""
    shutil.copytree(pictures, tmp_path / "mixed")
    (tmp_path / "mixed" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "mixed" / "n01" / "03.PNG").write_bytes(b"")
    (tmp_path / "mixed" / "notes.txt").write_text("no picture by its name")
    found, told = _gather(tmp_path / "mixed", subset=300)
    assert (len(found.samples) + len(found.held_out), found.skipped) == (19, 2)
    reading, skipped = told
    assert reading == f"reading samples from {tmp_path}/mixed"
    assert skipped.startswith(f"skipped 2 broken pictures, the first: {tmp_path}/mixed/")
    assert "not a picture in JPEG" in skipped


def test_a_picture_is_shown_once(pictures: Path, tmp_path: Path) -> None:
    """Copies of a picture are one sample: else one of them might be measured on what another one has calibrated."""
    for folder in ("a", "b"):
        shutil.copytree(pictures, tmp_path / folder)
    found, _ = _gather(tmp_path, subset=300)
    assert sorted(_colors(found)) == [10 * number for number in range(20)]


def test_too_few_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    """Ten samples are the least; those that are broken do not count, and are told of."""
    for number in range(9):
        shutil.copy(pictures / "n01" / f"{number:02}.PNG", tmp_path)
    with pytest.raises(UserError, match=r"holds 9 different samples, at least 10 are needed$"):
        _gather(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"holds 9 different samples that are not broken \(.*broken.jpg: not a picture"):
        _gather(tmp_path)


def test_records_of_pictures(pictures: Path, tmp_path: Path) -> None:
    """ImageNet's Examples give the samples that their pictures give as files; shards are read in turn."""
    files = sorted(pictures.rglob("*.PNG"))
    for shard in range(2):
        part = [_example(file.read_bytes()) for file in files[shard * 10 : shard * 10 + 10]]
        _write(tmp_path / f"validation-{shard:05}-of-00002", *part)
    (tmp_path / "README").write_text("no records by its name")
    found, _ = _gather(tmp_path, subset=300)
    assert found.kind == "records"
    assert sorted(_colors(found)) == [10 * number for number in range(20)]
    some, _ = _gather(tmp_path, subset=8)
    assert sorted(_colors(some)) == [10 * number for number in (*range(8), *range(10, 18))]


def test_records_of_requests(tmp_path: Path) -> None:
    """Each row of a recorded request is a sample, of any signature."""
    rows = np.arange(48, dtype=np.float32).reshape(12, 4)
    path = _write(tmp_path / "requests", _log(rows[:5]), _log(rows[5:]))
    found, _ = _gather(path, "floats")
    samples = [sample["input"] for sample in found.samples + found.held_out]
    assert {sample.shape for sample in samples} == {(1, 4)}
    np.testing.assert_array_equal(np.sort(np.concatenate(samples), axis=0), rows)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff\xff", "record 2: neither an Example nor a PredictionLog"),
        (example_pb2.Example().SerializeToString(), "record 2: neither an Example with a picture in image/encoded"),
        (_log(np.zeros((1, 5), np.float32)), r"record 2: input 'input' has shape \[1, 5\], but .* declares \[-1, 4\]"),
        (_log(np.zeros((1, 4), np.int32)), "record 2: "),
        (_log(np.zeros((1, 4), np.float32), "x"), "record 2: "),
        (_example(b"a picture"), r"pictures fit a model whose only input is uint8 \[-1, 224, 224, 3\]"),
    ],
    ids=["bytes", "empty", "shape", "dtype", "alias", "picture"],
)
def test_bad_records_are_named(tmp_path: Path, record: bytes, message: str) -> None:
    """A record that is no sample of the signature is one line with its file and number."""
    path = _write(tmp_path / "bad.tfrecord", _log(np.zeros((1, 4), np.float32)), record)
    with pytest.raises(UserError, match=message) as refused:
        _gather(path, "floats")
    assert "\n" not in str(refused.value)


def test_cut_file_is_named(tmp_path: Path) -> None:
    """A file that ends in the middle of a record says so, with the place."""
    path = _write(tmp_path / "cut.tfrecord", _log(np.zeros((1, 4), np.float32)))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"corrupted record at 0 of .*cut.tfrecord"):
        _gather(path, "floats")


def test_pictures_need_a_signature_of_pictures(pictures: Path) -> None:
    """How a picture becomes another input nobody says, so it is refused, with the way that is left."""
    with pytest.raises(UserError, match=r"whose only input is uint8 .* pass TFRecords of PredictionLogs"):
        _gather(pictures, "floats")


def test_noise_has_the_signature_s_shape() -> None:
    """Noise fits what the signature declares; where that is open, it is refused."""
    found, _ = _gather("random", "floats")
    assert {sample["input"].shape for sample in found.samples} == {(1, 4)}
    assert len({sample["input"].tobytes() for sample in found.samples + found.held_out}) == 16
    with pytest.raises(UserError, match="input 'input' has no fixed shape"):
        _gather("random", "text")
