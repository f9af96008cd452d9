"""What a project wants installed in its image: found whole, or refused by file and line before anything is built."""

from pathlib import Path

import pytest

import cortex
from cortex.environments.docker.images import Shelf
from cortex.environments.docker.packages import ONNX_RUNTIME, Packages
from cortex.environments.tree import Tree
from cortex.errors import UserError
from cortex.spec import APISpec, Predictor


def spec(kind: str = "python") -> APISpec:
    return APISpec(name="iris", predictor=Predictor.model_validate({"type": kind, "path": "predictor.py"}))


def packages(project: Path, kind: str = "python", **files: str) -> Packages:
    """Write files (``__`` for a slash, ``_`` for a dot) into a project, and find what it wants."""
    for name, text in files.items():
        path = project / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Packages.of(spec(kind), Tree.of(project).files)


def test_without_requirements_the_image_is_ours(tmp_path: Path) -> None:
    """A file that says nothing is none."""
    for found in (packages(tmp_path), packages(tmp_path, requirements_txt="\n\n")):
        assert not found
        assert Shelf().images(spec(), gpus=0, packages=found).api == f"cortex-api:{cortex.__version__}"


def test_the_image_is_named_by_all_that_it_is_built_from(tmp_path: Path) -> None:
    """A change of a file that another one names is another image."""
    first = packages(tmp_path, requirements_txt="-r more.txt", more_txt="scikit-learn==1.9.0")
    second = packages(tmp_path, requirements_txt="-r more.txt", more_txt="scikit-learn==1.9.1")
    names = {Shelf().images(spec(), gpus=0, packages=each).api for each in (first, second)}
    assert len(names) == 2
    assert all(name.startswith("cortex-api-iris:") for name in names)


def test_files_that_requirements_name_come_along(tmp_path: Path) -> None:
    """Of `-r`, `-c` and wheels of the project, however deep, also in a circle; the rest is pip's to find."""
    wheel = tmp_path / "wheels/a-1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"PK")
    found = packages(
        tmp_path,
        requirements_txt="-r deep/more.txt\n--constraint=deep/pins.txt\n./wheels/a-1-py3-none-any.whl  # ours\n",
        deep__more_txt="--requirement ../requirements.txt\n-r most.txt\nb @ https://example.com/b-1-py3-none-any.whl",
        deep__most_txt="-f https://example.com/wheels\ngit+https://example.com/c.git#egg=c\nd[all]>=1\n--no-binary d",
        deep__pins_txt="numpy<3",
        other_txt="not named",
    )
    assert sorted(found.files) == [
        *("deep/more.txt", "deep/most.txt", "deep/pins.txt"),
        *("requirements.txt", "wheels/a-1-py3-none-any.whl"),
    ]
    context = found.context("cortex-api:1")
    assert sorted(context) == ["Dockerfile", *(f"packages/{name}" for name in sorted(found.files))]
    lines = context["Dockerfile"].decode().splitlines()
    assert lines[0] == "FROM cortex-api:1"
    assert any(line.startswith("RUN cd /tmp/packages && pip") and "-r requirements.txt" in line for line in lines)
    assert lines[-1] == "USER 10001:10001"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-r missing.txt", "there is no such file in the project"),
        ("-c ../pins.txt", "there is no such file in the project"),
        ("-r https://example.com/more.txt", "there is no such file in the project"),
        ("/wheels/a-1-py3-none-any.whl", "there is no such file in the project"),
        ("-e .", "is not in the image while packages are installed"),
        ("./src", "is not in the image while packages are installed"),
        ("src/a", "is not in the image while packages are installed"),
        ("--find-links wheels", "is not in the image while packages are installed"),
        ("a @ file:///src/a", "is not in the image while packages are installed"),
    ],
)
def test_what_no_build_could_find_is_refused(line: str, told: str, tmp_path: Path) -> None:
    """By file and line, also of a file that another one names, in the words of the file."""
    with pytest.raises(UserError) as refused:
        packages(tmp_path, requirements_txt="-r deep/more.txt", deep__more_txt=f"numpy\n{line}", src__a__setup_py="")
    assert str(refused.value).startswith(f"deep/more.txt:2: {line}: {told}")


def test_an_onnx_predictor_has_onnx_runtime(tmp_path: Path) -> None:
    """Beside what its project wants, which may name another one."""
    alone = packages(tmp_path, "onnx")
    assert alone.files[alone.entry].decode().split() == [ONNX_RUNTIME]
    beside = packages(tmp_path, "onnx", requirements_txt="\ufeffscikit-learn==1.9.0\n")
    assert beside.files[beside.entry].decode().splitlines() == [ONNX_RUNTIME, "-r requirements.txt"]
    other = packages(tmp_path, "onnx", requirements_txt="onnxruntime==1.20.0\n")
    assert list(other.files) == [other.entry] == ["requirements.txt"]
