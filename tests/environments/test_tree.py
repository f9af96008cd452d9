import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cortex.environments.tree import Tree, human_size, inner_name
from cortex.errors import UserError


def _write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_copy_has_the_same_names_bytes_and_digest(tmp_path: Path) -> None:
    source = _write(tmp_path / "source", {"a": b"1", "d/b.bin": bytes(range(256)), "d/e/c": b""})
    tree = Tree.of(source)
    tree.copy_to(tmp_path / "copies" / "one")
    assert _contents(tmp_path / "copies/one") == _contents(source)
    assert Tree.of(tmp_path / "copies/one").digest == tree.digest
    assert _names(tmp_path / "copies") == ["one"]


def test_the_digest_ignores_times_and_order(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", {"a": b"1", "b": b"2"})
    two = _write(tmp_path / "two", {"b": b"2", "a": b"1"})
    os.utime(two / "a", (0, 0))
    assert Tree.of(one).digest == Tree.of(two).digest


@pytest.mark.parametrize(
    "files",
    [{"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"d/a": b"1"}, {}],
    ids=["bytes", "name", "another file", "directory", "no file"],
)
def test_the_digest_changes_with_names_and_bytes(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "changed").mkdir()
    changed = _write(tmp_path / "changed", files)
    assert Tree.of(_write(tmp_path / "base", {"a": b"1"})).digest != Tree.of(changed).digest


def test_the_digest_changes_with_the_executable_bit_and_a_copy_keeps_it(tmp_path: Path) -> None:
    source = _write(tmp_path / "source", {"run": b"#!/bin/sh"})
    before = Tree.of(source).digest
    (source / "run").chmod(0o755)
    assert Tree.of(source).digest != before
    Tree.of(source).copy_to(tmp_path / "copy")
    assert os.access(tmp_path / "copy/run", os.X_OK)


def test_a_secret_file_stays_secret_in_the_copy(tmp_path: Path) -> None:
    source = _write(tmp_path / "source", {".env": b"KEY=1"})
    (source / ".env").chmod(0o600)
    Tree.of(source).copy_to(tmp_path / "copy")
    assert (tmp_path / "copy/.env").stat().st_mode & 0o777 == 0o600


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    source = _write(tmp_path / "source", {"d/a": b"1"})
    (source / "again").symlink_to("d")
    (source / "d/up").symlink_to("..")
    (source / "self").symlink_to("self")
    (source / "dangling").symlink_to("nowhere")
    assert set(Tree.of(source).files) == {"d/a", "again/a"}


def test_what_is_not_a_regular_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_write(tmp_path, {"a": b"1"}))
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert set(Tree.of(tmp_path).files) == {"a"}


def test_a_file_that_changes_while_it_is_copied_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = _write(tmp_path / "source", {"a": b"1"})
    tree = Tree.of(source)
    assert tree.digest
    (source / "a").write_bytes(b"2")
    with pytest.raises(UserError, match="changed while they were being copied"):
        tree.copy_to(tmp_path / "copies/one")
    assert _names(tmp_path / "copies") == []


def test_a_copy_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    tree = Tree.of(_write(tmp_path / "source", {"a": b"1"}))
    there = _write(tmp_path / "there", {"other": b"kept"})
    tree.copy_to(there)
    assert _contents(there) == {"other": b"kept"}


_FILL = """
import resource, signal, sys
from pathlib import Path
from cortex.environments.tree import Tree
from cortex.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Tree.of(Path(sys.argv[1])).copy_to(Path(sys.argv[2]))
except UserError as error:
    print(error)
"""


def test_a_file_in_the_place_of_a_copy_is_one_line_and_stays(tmp_path: Path) -> None:
    """What is not the copy of another is not taken for one."""
    (tmp_path / "from").mkdir()
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match=r"^cannot copy .*/there: Not a directory$"):
        Tree.of(tmp_path / "from").copy_to(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "there"]


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: both fail in the middle of writing."""
    source = _write(tmp_path / "source", {"small": b"1", "large": bytes(100_000)})
    command = [sys.executable, "-c", _FILL, source, tmp_path / "copies/one"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("cannot copy")
    assert printed.rstrip().endswith("File too large")
    assert printed.count("\n") == 1
    assert _names(tmp_path / "copies") == []


def test_a_file_that_may_not_be_read_is_one_line(ordinary_user: Path) -> None:
    (ordinary_user / "secret").touch(mode=0o000)
    with pytest.raises(UserError) as raised:
        _ = Tree.of(ordinary_user).digest
    assert str(raised.value) == f"cannot read the file {ordinary_user}/secret: Permission denied"


def test_a_directory_that_may_not_be_written_is_one_line(ordinary_user: Path) -> None:
    tree = Tree.of(_write(ordinary_user / "source", {"a": b"1"}))
    (ordinary_user / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"cannot copy .*closed.*: Permission denied"):
        tree.copy_to(ordinary_user / "closed/one")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a\\b", "a\0b", ".."])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not a name"):
        inner_name(name)


@pytest.mark.parametrize(("name", "inner"), [("a", "a"), ("a/b.c", "a/b.c"), ("./a//b", "a/b"), ("..a/b", "..a/b")])
def test_a_name_that_stays_inside_is_kept(name: str, inner: str) -> None:
    assert inner_name(name) == inner


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (98_000_000, "98.0 MB"), (2**31, "2.1 GB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert human_size(size) == text
