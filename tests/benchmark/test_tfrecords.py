"""The converter: what is in the records, which label each picture gets, and that it goes on where it stopped."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import imagenet_records, tfrecords
from cortex.errors import UserError
from cortex.protos import example_pb2
from cortex.tfrecord import read_records
from tests.waiting import DEADLINE, until

ROOT = Path(__file__).parents[2]

Convert = Callable[..., "subprocess.CompletedProcess[str]"]


def _argv(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "benchmark", "tfrecords", *map(str, arguments)]


@pytest.fixture
def convert() -> Convert:
    """Run ``python -m benchmark tfrecords ARGUMENTS`` to its end."""
    return lambda *arguments: subprocess.run(_argv(*arguments), capture_output=True, text=True, timeout=60, cwd=ROOT)


def _examples(directory: Path) -> list[dict[str, list[bytes] | list[int]]]:
    found = []
    for path in imagenet_records.files(directory):
        for data in read_records(path):
            features = example_pb2.Example.FromString(data).features.feature.items()
            found.append({name: list(each.bytes_list.value or each.int64_list.value) for name, each in features})
    return found


def test_layout(records: Path, colors: Path) -> None:
    """Every feature of ImageNet's layout is there; a JPEG is kept byte for byte, a PNG becomes one."""
    examples = _examples(records)
    assert len(examples) == 32
    assert sorted(path.name for path in records.iterdir()) == [
        *("validation-00000-of-00003", "validation-00001-of-00003", "validation-00002-of-00003"),
        *("validation-labels.txt", "validation.json"),
    ]
    assert (records / "validation-labels.txt").read_text().splitlines()[7] == "8\tcolor7\tcolor7"
    for example in examples:
        synset, name = example["image/class/synset"][0].decode(), example["image/filename"][0].decode()
        assert example["image/class/label"] == [int(synset.removeprefix("color")) + 1]
        assert example["image/class/text"] == [synset.encode()]
        assert (example["image/colorspace"], example["image/format"]) == ([b"RGB"], [b"JPEG"])
        assert example["image/channels"] == [3]
        source, (encoded,) = colors / synset / name, example["image/encoded"]
        with Image.open(io.BytesIO(encoded)) as image, Image.open(source) as original:
            assert image.format == "JPEG"
            assert (example["image/width"], example["image/height"]) == ([original.width], [original.height])
            assert image.size == original.size
            assert np.abs(np.asarray(image, int) - np.asarray(original, int)).max() < 3
        assert (encoded == source.read_bytes()) is (source.suffix == ".jpg")


def test_they_are_read(records: Path) -> None:
    """What is read of a record is its label, its picture, and where it stands, for messages."""
    found = list(imagenet_records.read(records))
    assert sorted(record.label for record in found) == sorted(list(range(1, 9)) * 4)
    assert found[0].where.startswith(f"{records}/validation-00000-of-00003, record 0 (")


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), 156),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 255),
        (Image.new("L", (8, 8), 90), 90),
    ],
    ids=["16 bits of grey", "transparent", "grey"],
)
def test_what_becomes_a_jpeg(tmp_path: Path, picture: Image.Image, shown: int) -> None:
    """It looks as it does to the API: 16 bits are scaled to 8, transparent parts are white."""
    (tmp_path / "pictures" / "x").mkdir(parents=True)
    picture.save(tmp_path / "pictures" / "x" / "a.png")
    tfrecords.convert(tfrecords.Order(tmp_path / "pictures", tmp_path / "out", "validation"), print)
    (example,) = _examples(tmp_path / "out")
    with Image.open(io.BytesIO(example["image/encoded"][0])) as image:
        assert (image.mode, image.getpixel((4, 4))) == ("RGB", (shown,) * 3)


def _pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["cat/a.jpg", "dog/deep/b.jpg"], None, {"a.jpg": 1, "b.jpg": 2}),
        (["n01443537/a.jpg", "n01440764/b.jpg"], None, {"a.jpg": 2, "b.jpg": 1}),
        (["n02123045/a.jpg"], None, {"a.jpg": 282}),
        (["a.jpg", "b.jpg"], "a.jpg 281\nb.jpg 0\n", {"a.jpg": 282, "b.jpg": 1}),
        (["x/a.jpg", "my b.jpg"], "x/a.jpg,dog\n\nmy b.jpg,cat\n", {"a.jpg": 2, "my b.jpg": 1}),
        (["a,b.jpg", "my  c.jpg"], "a,b.jpg 3\n my  c.jpg, 4 \n", {"a,b.jpg": 4, "my  c.jpg": 5}),
        (["b.jpg", "a.jpg"], "n01440764\nn02123045\n", {"a.jpg": 1, "b.jpg": 282}),
    ],
)
def test_labels(tmp_path: Path, names: list[str], labels: str | None, expected: dict[str, int]) -> None:
    """Labels count from 1: by folder or by file, in ImageNet's order where the classes are ImageNet's, else by name."""
    pictures = _pictures(tmp_path / "pictures", *names)
    (tmp_path / "labels.txt").write_text(labels or "")
    labelled = tmp_path / "labels.txt" if labels else None
    tfrecords.convert(tfrecords.Order(pictures, tmp_path / "out", "validation", labelled), print)
    examples = _examples(tmp_path / "out")
    assert {each["image/filename"][0].decode(): each["image/class/label"][0] for each in examples} == expected


def test_folders_that_are_links(convert: Convert, tmp_path: Path) -> None:
    """A class whose folder is a link is a class like any other; a link to a folder on the way to it adds nothing."""
    elsewhere = _pictures(tmp_path / "elsewhere", "cat/a.jpg", "dog/b.jpg")
    chosen = _pictures(tmp_path / "chosen", "eel/c.jpg")
    for name in ("cat", "dog"):
        (chosen / name).symlink_to(elsewhere / name)
    (elsewhere / "dog" / "again").symlink_to(chosen)
    done = convert(chosen, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 pictures written" in done.stdout
    labels = (tmp_path / "out" / "validation-labels.txt").read_text()
    assert labels == "1\tcat\tcat\n2\tdog\tdog\n3\teel\teel\n"


def test_pictures_and_labels_that_are_not_there(convert: Convert, tmp_path: Path) -> None:
    """They are said to be missing, not to hold no pictures."""
    for arguments in ((tmp_path / "none", tmp_path / "out"), (tmp_path, tmp_path / "out", "--labels", "none")):
        done = convert(*arguments)
        assert done.returncode == 2
        assert "none' does not exist." in done.stderr


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        ([], None, "pictures: no pictures in it"),
        (["a.jpg", "x/b.jpg"], None, "pictures/a.jpg: lies in no folder of a class"),
        (["a.jpg", "b.jpg"], "a.jpg 1\n", "pictures/b.jpg: "),
        (["a.jpg"], "a.jpg 1\nb.jpg 2\n", "labels.txt, line 2: expected the name of a picture"),
        (["a.jpg"], "cat\ndog\n", "labels.txt: 2 classes, but"),
        (["n01440764/a.jpg", "dog/b.jpg"], None, "n01440764 is a class of ImageNet's, dog is not"),
    ],
)
def test_refusals(tmp_path: Path, names: list[str], labels: str | None, message: str) -> None:
    """Pictures without a class, and classes without a picture, are named in the message; nothing is written."""
    (tmp_path / "pictures").mkdir()
    pictures = _pictures(tmp_path / "pictures", *names)
    (tmp_path / "labels.txt").write_text(labels or "")
    labelled = tmp_path / "labels.txt" if labels else None
    with pytest.raises(UserError) as refused:
        tfrecords.convert(tfrecords.Order(pictures, tmp_path / "out", "validation", labelled), print)
    assert message in str(refused.value)
    assert not list(tmp_path.glob("out/*-of-*"))


@pytest.mark.parametrize("name", ["deep/validation", "../validation"])
def test_a_name_that_is_a_path(tmp_path: Path, name: str) -> None:
    """Nothing is written outside of the directory that was named."""
    pictures = _pictures(tmp_path / "pictures", "x/a.jpg")
    with pytest.raises(UserError, match=f"--name {name}: expected the name of files"):
        tfrecords.convert(tfrecords.Order(pictures, tmp_path / "out", name), print)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_broken_picture(convert: Convert, tmp_path: Path) -> None:
    """A picture that cannot be read stops the conversion by name, or is left out when that is asked for."""
    pictures = _pictures(tmp_path / "pictures", "x/a.jpg", "x/b.jpg")
    (pictures / "x" / "c.jpg").write_bytes(b"no picture")
    refused = convert(pictures, tmp_path / "out")
    assert refused.returncode == 1
    assert "x/c.jpg: not a picture that can be read (no known format); --skip-broken leaves it out" in refused.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["validation-labels.txt", "validation.json"]
    done = convert(pictures, tmp_path / "out", "--skip-broken")
    assert done.returncode == 0, done.stderr
    assert "2 pictures written, 0 already there, 1 skipped" in done.stdout
    assert "x/c.jpg: not a picture that can be read (no known format)\n" in done.stderr
    assert len(_examples(tmp_path / "out")) == 2
    again = convert(pictures, tmp_path / "out", "--skip-broken")
    assert "0 pictures written, 2 already there, 1 skipped" in again.stdout
    file = tmp_path / "out" / "validation-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-1])
    damaged = convert(pictures, tmp_path / "out", "--skip-broken")
    assert (damaged.returncode, "damaged; delete it, and it is made again" in damaged.stderr) == (1, True)


def test_names_that_are_no_text(convert: Convert, tmp_path: Path) -> None:
    """Names of files and folders need not be UTF-8: the records hold their bytes."""
    pictures = _pictures(tmp_path / "pictures", "x\udcff/a\udcff.jpg")
    done = convert(pictures, tmp_path / "out\udcff")
    assert done.returncode == 0, done.stderr
    (example,) = _examples(tmp_path / "out\udcff")
    assert (example["image/filename"], example["image/class/synset"]) == ([b"a\xff.jpg"], [b"x\xff"])
    assert (tmp_path / "out\udcff" / "validation-labels.txt").read_bytes() == b"1\tx\xff\tx\xff\n"


def test_labels_that_could_not_be_written(convert: Convert, tmp_path: Path) -> None:
    """The list of labels is made up for when the conversion goes on."""
    pictures, partial = _pictures(tmp_path / "pictures", "x/a.jpg"), tmp_path / "out" / ".validation-labels.txt.partial"
    partial.mkdir(parents=True)
    assert convert(pictures, tmp_path / "out").returncode == 1
    partial.rmdir()
    assert convert(pictures, tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "validation-labels.txt").read_text() == "1\tx\tx\n"


def _long(folder: Path) -> tuple[str | Path, ...]:
    """Return the arguments of a conversion that takes a while."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    (folder / "pictures" / "x").mkdir(parents=True)
    for number in range(24):
        Image.fromarray(np.roll(noise, number)).save(folder / "pictures" / "x" / f"{number}.bmp")
    return folder / "pictures", folder / "out", "--files", "12"


@contextmanager
def _begun(arguments: Sequence[str | Path]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a conversion whose first file is there by now."""
    with subprocess.Popen(_argv(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: list(Path(arguments[1]).glob("validation-*-of-*")))
            yield process
        finally:
            process.kill()


def test_two_at_once(convert: Convert, tmp_path: Path) -> None:
    """A second conversion into the same directory is refused in one line, and the first one ends as if alone."""
    arguments = _long(tmp_path)
    with _begun(arguments) as process:
        process.send_signal(signal.SIGSTOP)
        refused = convert(*arguments)
        process.send_signal(signal.SIGCONT)
        assert process.wait(DEADLINE) == 0
    assert refused.returncode == 1
    assert refused.stderr == f"Error: another conversion is writing into {arguments[1]}: wait until it has ended\n"
    assert "0 pictures written, 24 already there" in convert(*arguments).stdout


def test_it_goes_on_after_a_kill(convert: Convert, tmp_path: Path) -> None:
    """Killed in the middle, it goes on with the files that are missing, and all are as if it had never been killed."""
    arguments = _long(tmp_path)
    with _begun(arguments) as process:
        process.kill()
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("validation-*-of-*")}
    assert 0 < len(there) < 12
    again = convert(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"{24 - 2 * len(there)} pictures written, {2 * len(there)} already there" in again.stdout
    assert again.stderr.count("of 24 pictures") == 12 - len(there)
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert convert(tmp_path / "pictures", tmp_path / "whole", "--files", "12").returncode == 0
    for path in imagenet_records.files(tmp_path / "whole"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    (tmp_path / "pictures" / "x" / "0.bmp").unlink()
    other = convert(*arguments)
    assert other.returncode == 1
    assert "validation.json: the files here were begun from other pictures" in other.stderr
