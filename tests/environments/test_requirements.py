import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cortex.environments.requirements import check, missing
from cortex.errors import UserError

PYTEST = version("pytest")


def _missing(directory: Path, text: str) -> list[str]:
    (directory / "requirements.txt").write_text(text)
    return [str(row) for row in missing(directory / "requirements.txt")]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# not-there",
        "pytest",
        "PyTest >= 1.0, != 3.0",
        f"pytest=={PYTEST}  # a comment",
        f"pytest=={PYTEST} --hash=sha256:0011",
        f"pytest \\\n  =={PYTEST} \\\n  --hash=sha256:00",
        "not-there; python_version < '3'",
        "not-there==1.0 ; sys_platform == 'win32' and python_version > '3'",
        "--index-url https://example.com/simple",
        "--extra-index-url=https://example.com",
        "-i https://example.com",
        "-f ./wheels",
        "--no-binary :all:",
        "-c not-there.txt",
        "pytest @ https://example.com/pytest-0.1.zip",
        "pytest@https://example.com/pytest-0.1.zip",
        "git+https://example.com/pytest.git@main#egg=pytest",
        "-e git+ssh://git@example.com/x.git#egg=pytest&subdirectory=x",
        f"https://example.com/pytest-{PYTEST}-py3-none-any.whl",
        "git+https://example.com/no-name-told.git",
        ".",
        "-e .",
        "./packages/thing",
        "../thing[extra]",
        "/abs/thing.tar.gz",
        "https://example.com/thing.zip",
    ],
)
def test_what_is_met_or_cannot_be_checked(tmp_path: Path, line: str) -> None:
    assert _missing(tmp_path, line) == []


@pytest.mark.parametrize(
    ("line", "unmet"),
    [
        ("not-there", "not-there: not installed"),
        ("not_there [a,b] >= 1", "not_there>=1: not installed"),
        ("not-there; python_version > '3'", "not-there: not installed"),
        ("pytest==0.1", f"pytest==0.1: {PYTEST} is installed"),
        ("pytest<1  # old", f"pytest<1: {PYTEST} is installed"),
        ("pytest \\\n ==0.1", f"pytest==0.1: {PYTEST} is installed"),
        ("not-there @ https://example.com/x.zip", "not-there: not installed"),
        ("git+https://example.com/x.git#egg=not-there", "not-there: not installed"),
        ("-e git+https://example.com/x.git#egg=not-there", "not-there: not installed"),
        ("./wheels/not_there-1.0-py3-none-any.whl", "not-there==1.0: not installed"),
        ("https://example.com/pytest-0.1-py3-none-any.whl#sha256=00", f"pytest==0.1: {PYTEST} is installed"),
    ],
)
def test_what_is_not_met(tmp_path: Path, line: str, unmet: str) -> None:
    assert _missing(tmp_path, line) == [unmet]


@pytest.mark.parametrize("line", ["==1", "pytest==", "two words", "pytest; python_version ~~ '3'", "a b @ c", "%s"])
def test_a_line_that_is_no_requirement_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/requirements\.txt:3: .* is not a requirement: ") as raised:
        _missing(tmp_path, f"# first\npytest\n{line}\n")
    assert "\n" not in str(raised.value)


def test_included_files_are_checked_too_and_once(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/base.txt").write_text("-r ../requirements.txt\nnot-there-either\n")
    text = "-r more/base.txt\n--requirement more/base.txt\n--requirement=more/base.txt\nnot-there\n"
    assert _missing(tmp_path, text) == ["not-there-either: not installed", "not-there: not installed"]


def test_an_included_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"requirements\.txt:2: .*/base\.txt does not exist$"):
        _missing(tmp_path, "pytest\n-r base.txt\n")


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfep\x00")
    with pytest.raises(UserError, match=r"requirements\.txt: must be text in UTF-8"):
        missing(tmp_path / "requirements.txt")


def test_what_an_extra_needs_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution of our own on the path: its extra ``all`` needs its extra ``plot``, and that a missing package."""
    metadata = tmp_path / "site/thing-1.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    rows = ["plot: not-there>1", "plot: pytest", "all: thing[plot]", "all: thing[all]"]
    old = "Requires-Dist: not-there; extra == 'all' and python_version < '3'\n"
    needs = "".join(f"Requires-Dist: {need}; extra == '{extra}'\n" for extra, need in (row.split(": ") for row in rows))
    needs += "Requires-Dist: also-not-there\n"
    metadata.write_text(f"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n{old}{needs}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert _missing(tmp_path, "thing") == []
    assert _missing(tmp_path, "thing[plot]") == ["not-there>1: not installed"]
    assert _missing(tmp_path, "thing[all]") == ["not-there>1: not installed"]


@pytest.mark.parametrize(("installed", "asked"), [("2.1.0+cpu", "thing==2.1.0"), ("2.1.0rc1", "thing>=2.0")])
def test_a_local_version_meets_its_public_one_and_a_preview_a_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, asked: str
) -> None:
    metadata = tmp_path / f"site/thing-{installed}.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: thing\nVersion: {installed}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert _missing(tmp_path, asked) == []


def test_the_error_lists_everything_and_the_command(tmp_path: Path) -> None:
    project = tmp_path / "my project"
    project.mkdir()
    (project / "requirements.txt").write_text("not-there\npytest==0.1\n")
    with pytest.raises(UserError) as raised:
        check(project)
    first, *rows, last = str(raised.value).split("\n")
    assert first == f"{project}/requirements.txt asks for packages that are not installed:"
    assert rows == ["  not-there: not installed", f"  pytest==0.1: {PYTEST} is installed"]
    command = last.removeprefix("install them with: ")
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", "-r", f"{project}/requirements.txt"]


@pytest.mark.parametrize(
    ("names", "notices"),
    [
        ([], ()),
        (["requirements.txt"], ()),
        (["dependencies.sh"], ("dependencies.sh: not run here; install by hand what the API needs of it",)),
        (
            ["dependencies.sh", "conda-packages.txt"],
            ("dependencies.sh and conda-packages.txt: not run here; install by hand what the API needs of it",),
        ),
    ],
)
def test_other_ways_to_install_are_only_noticed(tmp_path: Path, names: list[str], notices: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert check(tmp_path) == notices


def test_what_pip_has_installed_is_met(tmp_path: Path) -> None:
    """The lines that `pip freeze` writes about this environment are all met."""
    command = [sys.executable, "-m", "pip", "freeze", "--disable-pip-version-check"]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    frozen = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert len(frozen.splitlines()) > 5
    assert _missing(tmp_path, frozen) == []
