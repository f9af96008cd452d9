import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.environments.model_layout import Kind, arrange, version_of
from cortex.errors import UserError
from export.staging import new_version

Make = Callable[..., Path]


def _touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _versions(path: Path, kind: Kind) -> dict[str, Path]:
    """Map the versions that were found to the directories that they came from."""
    found: dict[str, Path] = {}
    for name, file in arrange(path, kind).files.items():
        version, _, rest = name.partition("/")
        found[version] = Path(str(file).removesuffix(f"/{rest}"))
    return found


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("1562353043", 1562353043),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        ("0", None),
        ("-1", None),
        ("1.5", None),
        ("v1", None),
        ("", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        (str(2**63), None),
        ("9" * 300, None),
    ],
)
def test_a_version_is_a_whole_number_above_zero(name: str, version: int | None) -> None:
    assert version_of(name) == version


@pytest.mark.parametrize(
    ("exports", "path", "versions"),
    [
        (["1"], ".", ["1"]),
        (["1", "10", "2"], ".", ["1", "2", "10"]),
        (["0003"], ".", ["3"]),
        (["export/Servo/1562353043"], ".", ["1562353043"]),
        (["1562353043"], "1562353043", ["1562353043"]),
        (["resnet50"], "resnet50", ["1"]),
        (["1", "old/1"], ".", ["1"]),
    ],
    ids=["one", "all of several", "leading zeros", "nested", "is a version", "is a SavedModel", "base path wins"],
)
def test_where_the_versions_of_a_savedmodel_are_found(
    tmp_path: Path, write_saved_model: Make, exports: list[str], path: str, versions: list[str]
) -> None:
    for export in exports:
        write_saved_model(tmp_path / export)
    found = _versions(tmp_path / path, "tensorflow")
    assert sorted(found, key=int) == versions
    names = set(arrange(tmp_path / path, "tensorflow").files)
    assert {f"{version}/variables/variables.index" for version in versions} <= names


def test_what_is_beside_the_versions_is_left_out(tmp_path: Path, write_saved_model: Make) -> None:
    write_saved_model(tmp_path / "1")
    _touch(tmp_path, "README.md", "1/assets.extra/model_card.json", "0/x", "backup/y")
    names = arrange(tmp_path, "tensorflow").files
    assert "1/assets.extra/model_card.json" in names
    assert {name.partition("/")[0] for name in names} == {"1"}


def test_a_graph_without_variables_needs_no_variables(tmp_path: Path, write_saved_model: Make) -> None:
    write_saved_model(tmp_path / "1", variables=False)
    assert set(arrange(tmp_path, "tensorflow").files) == {"1/saved_model.pb"}


def test_a_neuron_model_needs_only_its_graph(tmp_path: Path, write_saved_model: Make) -> None:
    write_saved_model(tmp_path / "1")
    (tmp_path / "1/variables/variables.index").unlink()
    assert "1/saved_model.pb" in arrange(tmp_path, "neuron").files
    (tmp_path / "1/saved_model.pb").unlink()
    with pytest.raises(UserError, match="invalid Neuron TensorFlow export directory"):
        arrange(tmp_path, "neuron")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "there is no 1/variables/"),
        (["variables.data-00000-of-00001"], "there is no 1/variables/variables.index"),
        (["variables.index"], "there is no 1/variables/variables.data-00000-of-00001"),
        (
            ["variables.index", "variables.data-00000-of-00002"],
            "there is no 1/variables/variables.data-00001-of-00002",
        ),
    ],
)
def test_variables_must_be_complete(tmp_path: Path, write_saved_model: Make, names: list[str], problem: str) -> None:
    write_saved_model(tmp_path / "1")
    for file in (tmp_path / "1/variables").iterdir():
        file.unlink()
    _touch(tmp_path / "1/variables", *names)
    with pytest.raises(UserError, match=f"^invalid TensorFlow export directory: {re.escape(problem)}, and the graph"):
        arrange(tmp_path, "tensorflow")


def test_a_layout_error_shows_what_was_expected_and_what_is_there(tmp_path: Path) -> None:
    _touch(tmp_path, "1/model.h5", "notes.txt", "evil\x1b[2J\n")
    with pytest.raises(UserError) as raised:
        arrange(tmp_path, "tensorflow")
    first, *rest = str(raised.value).split("\n")
    assert first == "invalid TensorFlow export directory: there is no 1/saved_model.pb"
    found = rest[rest.index("found:") + 1 :]
    assert rest[0] == "expected:"
    assert any("saved_model.pb" in line for line in rest[: rest.index("found:")])
    assert found == ["  1/", "    model.h5", r"  'evil\x1b[2J\n'", "  notes.txt"]


def test_a_layout_error_shows_at_most_50_entries(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"file{number:03}" for number in range(80)))
    with pytest.raises(UserError) as raised:
        arrange(tmp_path, "tensorflow")
    lines = str(raised.value).split("found:\n")[1].split("\n")
    assert lines[49:] == ["  file049", "  ... and 30 more"]


@pytest.mark.parametrize(
    ("exports", "problem"),
    [
        (["a/1", "b/1"], r"more than one directory has models in it \(a/, b/\); name one of them"),
        (["resnet50"], "resnet50/ has a saved_model.pb, but its name is not a version"),
        (["1", "01"], "01/ and 1/ are the same version"),
    ],
)
def test_exports_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, write_saved_model: Make, exports: list[str], problem: str
) -> None:
    for export in exports:
        write_saved_model(tmp_path / export)
    with pytest.raises(UserError, match=problem):
        arrange(tmp_path, "tensorflow")


def test_a_version_without_a_graph_is_refused_though_another_has_one(tmp_path: Path, write_saved_model: Make) -> None:
    write_saved_model(tmp_path / "1")
    _touch(tmp_path, "2/half-written.tmp")
    with pytest.raises(UserError, match=r"there is no 2/saved_model.pb"):
        arrange(tmp_path, "tensorflow")


def _corrupt(whole: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "empty": (b"", "is empty"),
        "text": (b"<html>404</html>", "is not a SavedModel: it does not begin like one"),
        "truncated": (whole[: len(whole) // 2], "is not a SavedModel: it is damaged or cut short"),
        "no graph": (b"\x08\x01", "is not a SavedModel: it has no graph"),
        "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a Git LFS pointer"),
    }


@pytest.mark.parametrize("how", list(_corrupt(b"")))
def test_a_corrupt_graph_is_one_clear_line(tmp_path: Path, write_saved_model: Make, how: str) -> None:
    graph = write_saved_model(tmp_path / "1") / "saved_model.pb"
    content, problem = _corrupt(graph.read_bytes())[how]
    graph.write_bytes(content)
    with pytest.raises(UserError, match=f"^1/saved_model.pb {problem}") as raised:
        arrange(tmp_path, "tensorflow")
    assert "\n" not in str(raised.value)


def test_a_graph_larger_than_a_message_can_be_is_refused_unread(tmp_path: Path) -> None:
    _touch(tmp_path, "1/saved_model.pb", content=b"\x08\x01")
    with (tmp_path / "1/saved_model.pb").open("r+b") as stream:
        stream.truncate(2**31)
    with pytest.raises(UserError, match=r"2\.1 GB is more than a protobuf message can have"):
        arrange(tmp_path, "tensorflow")


def test_a_graph_that_is_not_for_serving_is_refused(tmp_path: Path, write_saved_model: Make) -> None:
    write_saved_model(tmp_path / "1", tags=("train", "gpu"))
    with pytest.raises(UserError, match=r'no graph with the tag "serve" \(it has: gpu, train\)'):
        arrange(tmp_path, "tensorflow")


@pytest.mark.parametrize(
    ("names", "path", "found"),
    [
        (["m.onnx"], "m.onnx", {"1/m.onnx"}),
        (["m.onnx", "m.onnx.data", "other"], "m.onnx", {"1/m.onnx", "1/m.onnx.data"}),
        (["m.onnx", "weights.bin"], ".", {"1/m.onnx", "1/weights.bin"}),
        (["1/m.onnx", "2/m.onnx"], ".", {"1/m.onnx", "2/m.onnx"}),
        (["1/m.onnx", "README.md"], ".", {"1/m.onnx"}),
        (["7/m.onnx"], "7", {"7/m.onnx"}),
    ],
)
def test_where_an_onnx_model_is_found(tmp_path: Path, names: list[str], path: str, found: set[str]) -> None:
    _touch(tmp_path, *names)
    assert set(arrange(tmp_path / path, "onnx").files) == found


@pytest.mark.parametrize(
    ("names", "path", "problem"),
    [
        (["a.onnx", "b.onnx"], ".", "it must have exactly one .onnx file, and has 2"),
        (["1/a.onnx", "2/readme"], ".", "version 2 must have exactly one .onnx file, and has 0"),
        (["readme"], ".", "there is no .onnx file"),
        (["model.pb"], "model.pb", "must be a file ending in .onnx, or a directory with one"),
    ],
)
def test_an_onnx_model_is_exactly_one_file(tmp_path: Path, names: list[str], path: str, problem: str) -> None:
    _touch(tmp_path, *names)
    with pytest.raises(UserError, match=problem):
        arrange(tmp_path / path, "onnx")


def test_an_empty_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m.onnx is empty"):
        arrange(_touch(tmp_path, "m.onnx", content=b""), "onnx")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["weights.pkl", "d/vocab"], {"1/weights.pkl", "1/d/vocab"}),
        (["1/weights.pkl", "2/weights.pkl", ".cache/x"], {"1/weights.pkl", "2/weights.pkl"}),
        (["1/weights.pkl", "vocab"], {"1/1/weights.pkl", "1/vocab"}),
    ],
    ids=["any files", "versions", "mixed is one model"],
)
def test_a_python_model_is_any_directory(tmp_path: Path, names: list[str], found: set[str]) -> None:
    _touch(tmp_path, *names)
    assert set(arrange(tmp_path, "python").files) == found


@pytest.mark.parametrize("kind", ["tensorflow", "neuron", "onnx", "python"])
def test_an_empty_directory_is_no_model(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(UserError, match="directory is empty"):
        arrange(tmp_path, kind)


@pytest.mark.parametrize("kind", ["tensorflow", "neuron", "onnx", "python"])
def test_an_export_that_has_not_ended_is_no_model(tmp_path: Path, write_saved_model: Make, kind: Kind) -> None:
    with new_version(tmp_path, 1, force=False) as directory:
        write_saved_model(directory)
        with pytest.raises(UserError, match=r"^its first export has not ended; .*$"):
            arrange(tmp_path, kind)


@pytest.mark.parametrize("kind", ["tensorflow", "neuron", "onnx", "python"])
def test_a_file_of_no_known_kind_is_no_model(tmp_path: Path, kind: Kind) -> None:
    _touch(tmp_path, "model.h5")
    with pytest.raises(UserError, match=r"^must be a"):
        arrange(tmp_path / "model.h5", kind)
