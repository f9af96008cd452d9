import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.environments.fields import FieldError
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import ResolvedModel, resolve
from cortex.spec import APISpec

Make = Callable[..., Path]
MakeSpec = Callable[..., APISpec]


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "home/model_cache")


def _resolve(spec: APISpec, project: Path, cache: ModelCache) -> tuple[tuple[ResolvedModel, ...], list[str]]:
    lines: list[str] = []
    return resolve(spec, project, cache, lines.append), lines


def _zip(path: Path, directory: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(directory.rglob("*")):
            archive.write(file, file.relative_to(directory))
    return path


def test_a_model_becomes_a_directory_of_versions_in_the_cache(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    write_saved_model(project / "models/resnet50/1")
    write_saved_model(project / "models/resnet50/2", payload=b"2")
    (model,), lines = _resolve(make_spec("models/resnet50"), project, cache)
    assert (model.name, model.source, model.versions, model.notices) == (
        "_cortex_default",
        "models/resnet50",
        (1, 2),
        (),
    )
    assert model.path == cache.root / model.digest
    assert model.path.is_absolute()
    assert (model.path / "2/variables/variables.data-00000-of-00001").read_bytes() == b"2"
    assert lines == [f"caching model {project}/models/resnet50 ..."]


def test_a_cached_model_is_not_copied_again(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    write_saved_model(project / "m/1")
    first, _ = _resolve(make_spec("m"), project, cache)
    again, lines = _resolve(make_spec("m"), project, cache)
    assert (again, lines) == (first, [])


@pytest.mark.parametrize("written", ["~/m", "{project}/m", "m", "./m", "../project/m", "m/1", "m.zip", "folder.zip"])
def test_a_path_is_from_home_absolute_or_from_the_yaml(
    project: Path,
    cache: ModelCache,
    write_saved_model: Make,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
) -> None:
    monkeypatch.setenv("HOME", str(project))
    _zip(project / "m.zip", write_saved_model(project / "m/1").parent)
    write_saved_model(project / "folder.zip/1")
    (model,), _ = _resolve(make_spec(written.format(project=project)), project, cache)
    (plain,), _ = _resolve(make_spec("m"), project, cache)
    assert model.digest == plain.digest


def test_a_user_without_a_home_directory(
    project: Path, cache: ModelCache, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose user may be in no list of users: ``~/`` leads nowhere."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
    with pytest.raises(FieldError, match=r"models\[0\]\.path: ~/m: there is no home directory for ~/; write the whole"):
        _resolve(make_spec("~/m"), project, cache)


def test_several_models_keep_their_names_and_order(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    for name in ("b", "a"):
        write_saved_model(project / name / "1", payload=name.encode())
    models, _ = _resolve(make_spec("b", "a"), project, cache)
    assert [(model.name, model.source) for model in models] == [("m0", "b"), ("m1", "a")]


def test_every_directory_of_models_dir_is_a_model(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    for name in ("text-generator", "resnet50"):
        write_saved_model(project / "models" / name / "1", payload=name.encode())
    (project / "models/README.md").touch()
    (project / "models/.hidden").mkdir()
    spec = make_spec(models_dir="models/")
    keyed = spec.predictor.model_copy(update={"models_dir_signature_key": "labels"})
    models, _ = _resolve(spec.model_copy(update={"predictor": keyed}), project, cache)
    assert [(model.name, model.source, model.signature_key) for model in models] == [
        (name, f"models/{name}", "labels") for name in ("resnet50", "text-generator")
    ]
    assert len({model.digest for model in models}) == 2


@pytest.mark.parametrize(
    ("directory", "problem"),
    [
        ("models/two words", "'two words' cannot be a model's name: use letters, digits, dashes and underscores"),
        ("models/_cortex_default", "'_cortex_default' cannot be a model's name"),
        ("models", "must have a directory for each model, and has none"),
        ("elsewhere", "does not exist"),
    ],
)
def test_a_bad_models_dir_is_refused(
    project: Path, cache: ModelCache, make_spec: MakeSpec, directory: str, problem: str
) -> None:
    (project / directory).mkdir(parents=True)
    with pytest.raises(FieldError, match=r"^predictor\.models_dir: models: " + problem):
        _resolve(make_spec(models_dir="models"), project, cache)


def test_a_missing_model_is_one_line_that_says_where_it_was_looked_for(
    project: Path, cache: ModelCache, make_spec: MakeSpec
) -> None:
    with pytest.raises(FieldError) as raised:
        _resolve(make_spec("models/resnet50"), project, cache)
    assert raised.value.field == "predictor.models[0].path"
    assert raised.value.message == (
        f"models/resnet50: does not exist (looked for {project}/models/resnet50); "
        "export the model there first, or correct the path"
    )


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000], ids=["zero byte", "too long"])
def test_a_path_that_no_file_can_have_is_a_field_error(
    project: Path, cache: ModelCache, make_spec: MakeSpec, path: str
) -> None:
    with pytest.raises(FieldError, match=r"predictor\.models\[0\]\.path"):
        _resolve(make_spec(path), project, cache)


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch], ids=["pipe", "empty file"])
def test_what_is_neither_a_directory_nor_a_known_file_is_refused(
    project: Path, cache: ModelCache, make_spec: MakeSpec, make: Callable[[Path], None]
) -> None:
    make(project / "m")
    with pytest.raises(FieldError, match=r"m: must be a directory, or a zip file ending in .zip"):
        _resolve(make_spec("m"), project, cache)


def test_the_field_of_an_error_tells_which_of_several_models(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    write_saved_model(project / "good/1")
    (project / "bad/1").mkdir(parents=True)
    (project / "bad/1/saved_model.pb").write_bytes(b"\x08")
    with pytest.raises(FieldError) as raised:
        _resolve(make_spec("good", "bad"), project, cache)
    assert raised.value.field == "predictor.models[1].path"
    assert str(raised.value) == (
        "predictor.models[1].path: bad: 1/saved_model.pb is not a SavedModel: "
        "it is damaged or cut short; export or copy it again"
    )


def test_a_zip_that_is_none_is_one_line_and_leaves_nothing(
    project: Path, cache: ModelCache, make_spec: MakeSpec
) -> None:
    (project / "m.zip").write_bytes(b"not a zip")
    with pytest.raises(FieldError, match=r"m.zip: is not a zip file that can be read: File is not a zip file"):
        _resolve(make_spec("m.zip"), project, cache)
    assert _names(cache.root) == [".lock"]


def test_a_neuron_api_needs_no_variables(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    write_saved_model(project / "m/1")
    (project / "m/1/variables/variables.index").unlink()
    (model,), _ = _resolve(make_spec("m", inf=1), project, cache)
    assert model.versions == (1,)
    with pytest.raises(FieldError, match=r"there is no 1/variables/variables.index"):
        _resolve(make_spec("m"), project, cache)


@pytest.mark.parametrize(("kind", "path"), [("onnx", "m/model.onnx"), ("python", "m")])
def test_models_of_other_predictors_are_cached_too(
    project: Path, cache: ModelCache, make_spec: MakeSpec, kind: str, path: str
) -> None:
    (project / "m").mkdir()
    (project / "m/model.onnx").write_bytes(b"onnx")
    (model,), _ = _resolve(make_spec(path, kind=kind), project, cache)
    assert (model.path / "1/model.onnx").read_bytes() == b"onnx"


def test_an_api_without_models_has_none(project: Path, cache: ModelCache, make_spec: MakeSpec) -> None:
    assert _resolve(make_spec(kind="python"), project, cache) == ((), [])


@pytest.mark.parametrize(
    ("card", "notices"),
    [
        (json.dumps({"weights": {"kind": "random"}}), ["model resnet50 has random weights: its labels mean nothing"]),
        (json.dumps({"weights": {"kind": "imagenet"}}), []),
        (json.dumps({}), []),
        ("{", ["model resnet50: its assets.extra/model_card.json is not a model card, and was not read"]),
        ("[1]", ["model resnet50: its assets.extra/model_card.json is not a model card, and was not read"]),
        ("[" * 100_000, ["model resnet50: its assets.extra/model_card.json is not a model card, and was not read"]),
        (
            '{"weights": null}',
            ["model resnet50: its assets.extra/model_card.json is not a model card, and was not read"],
        ),
    ],
)
def test_the_model_card_of_the_highest_version_is_heeded(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec, card: str, notices: list[str]
) -> None:
    for version, text in (("2", json.dumps({"weights": {"kind": "random"}})), ("10", card)):
        directory = write_saved_model(project / "models/resnet50" / version) / "assets.extra"
        directory.mkdir()
        (directory / "model_card.json").write_text(text)
    (model,), _ = _resolve(make_spec("models/resnet50"), project, cache)
    assert list(model.notices) == notices


_RESOLVE = """
import sys
from pathlib import Path
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import resolve
from cortex.spec import APISpec
spec = APISpec.model_validate_json(sys.argv[1])
print(resolve(spec, Path(sys.argv[2]), ModelCache(Path(sys.argv[3])), lambda line: None)[0].versions)
print(sorted({"tensorflow", "fsspec", "aiohttp"} & set(sys.modules)))
"""


def test_a_local_model_costs_no_tensorflow_and_no_download_library(
    project: Path, cache: ModelCache, write_saved_model: Make, make_spec: MakeSpec
) -> None:
    write_saved_model(project / "m/1")
    command = [sys.executable, "-c", _RESOLVE, make_spec("m").model_dump_json(), project, cache.root]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(1,)\n[]\n"
