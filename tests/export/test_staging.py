"""A version directory appears whole or not at all, whatever happens to the process that writes it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cortex.errors import UserError
from export import staging
from export.staging import new_version

_WRITER = """
import sys, time
from pathlib import Path
from export.staging import new_version
with new_version(Path(sys.argv[1]), 1, force=True) as directory:
    (directory / "half").write_text("half a model")
    print("half", flush=True)
    time.sleep(300)
"""


def _write(output: Path, version: int, text: str, *, force: bool = False) -> None:
    with new_version(output, version, force=force) as directory:
        (directory / "model").write_text(text)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "models" / "resnet50"


@contextmanager
def _half_written(output: Path) -> Iterator[None]:
    """Have a process be in the middle of writing version 1, which is killed with -9 at the end."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", _WRITER, output], stdout=subprocess.PIPE, cwd=root) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"half\n"
            yield
        finally:
            writer.kill()


def _names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


def test_version_appears_when_the_block_ends(output: Path) -> None:
    """Inside the block the name does not exist; after it, it holds what was written, and nothing else is left."""
    with new_version(output, 3, force=False) as directory:
        (directory / "model").write_text("new")
        assert not (output / "3").exists()
        assert not any(name.isdigit() for name in _names(output))
    assert (output / "3" / "model").read_text() == "new"
    assert _names(output) == ["3"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()])
def test_failure_leaves_nothing(output: Path, failure: BaseException, tmp_path: Path) -> None:
    """A failed or interrupted block leaves no version, no temporary file, and no directory that was made for them."""

    def fail() -> None:
        with new_version(output, 1, force=False) as directory:
            (directory / "model").write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_an_output_directory_that_was_there(output: Path) -> None:
    """Only a directory that was made for the export goes away with it."""
    output.mkdir(parents=True)
    with pytest.raises(ValueError, match="no"), new_version(output, 1, force=False):
        raise ValueError("no")
    assert _names(output) == []


def test_killed_writer_leaves_no_version(output: Path) -> None:
    """After kill -9 there is no version directory; the next export removes the remains and succeeds."""
    with _half_written(output):
        pass
    assert _names(output) == [".exporting-1"]
    _write(output, 1, "whole")
    assert _names(output) == ["1"]
    assert [path.name for path in (output / "1").iterdir()] == ["model"]


def test_killed_replacement_keeps_the_old_version(output: Path) -> None:
    """A replacement that is killed half-way leaves the version that it was to replace."""
    _write(output, 1, "old")
    with _half_written(output):
        pass
    assert (output / "1" / "model").read_text() == "old"


def test_one_export_at_a_time(output: Path) -> None:
    """A second export into the same directory is refused, and does not take the first one's files for remains."""
    with _half_written(output), pytest.raises(UserError, match="another export is writing into"):
        _write(output, 2, "second")
    assert (output / ".exporting-1" / "half").exists()


def test_existing_version_needs_force(output: Path) -> None:
    """Without force an existing version is refused before anything is written, and stays as it was."""
    _write(output, 1, "old")
    with pytest.raises(UserError, match=r"1 exists already: pass --force to replace it, or another --output$"):
        _write(output, 1, "new")
    assert (output / "1" / "model").read_text() == "old"
    assert _names(output) == ["1"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
def test_force_replaces(output: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With force the old version is there until the new one is whole, on filesystems without an exchange as well."""
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    _write(output, 1, "old")
    (output / "1" / "left over").touch()
    with new_version(output, 1, force=True) as directory:
        (directory / "model").write_text("new")
        assert (output / "1" / "model").read_text() == "old"
    assert [path.name for path in (output / "1").iterdir()] == ["model"]
    assert (output / "1" / "model").read_text() == "new"
    assert _names(output) == ["1"]


def test_exchange_is_one_step_here(tmp_path: Path) -> None:
    """On Linux the swap is one system call, so that no moment without a version exists."""
    if not sys.platform.startswith("linux"):
        pytest.skip("renameat2 is Linux's")
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert staging._exchange(tmp_path / "a", tmp_path / "b")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")


def test_version_that_was_moved_away_comes_back(output: Path) -> None:
    """A run killed between the two renames of a replacement has moved the old version away; the next puts it back."""
    _write(output, 1, "old")
    (output / "1").rename(output / ".replaced-1")
    _write(output, 2, "other")
    assert _names(output) == ["1", "2"]
    assert (output / "1" / "model").read_text() == "old"


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """An output below a file is one clear line that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write into .*file/resnet50: Not a directory$"):
        _write(tmp_path / "file" / "resnet50", 1, "new")


def test_a_file_that_cannot_be_copied(output: Path, tmp_path: Path) -> None:
    """A source of which a file cannot be copied is one line that names it once."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "gone").symlink_to("nowhere")
    with (
        pytest.raises(
            UserError, match=rf"^cannot copy {tmp_path}/source/gone into {output}: \S+ \S+ No such file[^/]*$"
        ),
        new_version(output, 1, force=False) as directory,
    ):
        shutil.copytree(tmp_path / "source", directory, dirs_exist_ok=True)
