import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cortex.environments.model_cache import ModelCache
from cortex.environments.tree import TEMPORARY, Tree
from cortex.errors import UserError
from tests.waiting import DEADLINE


def _tree(directory: Path, content: bytes = b"1") -> Tree:
    (directory / "1").mkdir(parents=True, exist_ok=True)
    (directory / "1/saved_model.pb").write_bytes(content)
    return Tree.of(directory)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _keep(cache: ModelCache, tree: Tree) -> tuple[str, bool]:
    copied: list[bool] = []
    digest = cache.keep(tree, lambda: copied.append(True))
    return digest, bool(copied)


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "home/model_cache")


def test_the_same_content_is_copied_once(cache: ModelCache, tmp_path: Path) -> None:
    digest, copied = _keep(cache, _tree(tmp_path / "one"))
    assert copied
    assert _keep(cache, _tree(tmp_path / "two")) == (digest, False)
    assert (cache.entry(digest) / "1/saved_model.pb").read_bytes() == b"1"


def test_an_edit_of_the_users_file_does_not_reach_the_cache(cache: ModelCache, tmp_path: Path) -> None:
    digest, _ = _keep(cache, _tree(tmp_path / "model"))
    (tmp_path / "model/1/saved_model.pb").write_bytes(b"2")
    assert (cache.entry(digest) / "1/saved_model.pb").read_bytes() == b"1"
    assert _keep(cache, Tree.of(tmp_path / "model"))[0] != digest


@pytest.mark.parametrize(
    "harm", [lambda file: file.unlink(), lambda file: file.write_bytes(b"")], ids=["gone", "empty"]
)
def test_an_entry_that_was_harmed_is_copied_again(cache: ModelCache, tmp_path: Path, harm: object) -> None:
    assert callable(harm)
    digest, _ = _keep(cache, _tree(tmp_path / "model"))
    harm(cache.entry(digest) / "1/saved_model.pb")
    assert _keep(cache, Tree.of(tmp_path / "model")) == (digest, True)
    assert (cache.entry(digest) / "1/saved_model.pb").read_bytes() == b"1"


def test_pruning_removes_what_is_not_in_use_and_nothing_else(cache: ModelCache, tmp_path: Path) -> None:
    used, _ = _keep(cache, _tree(tmp_path / "used", b"used"))
    unused, _ = _keep(cache, _tree(tmp_path / "unused", b"unused"))
    (cache.root / "notes.txt").write_text("the user's")
    assert cache.prune(lambda: {used}) == (unused,)
    assert sorted(path.name for path in cache.root.iterdir()) == sorted([".lock", "notes.txt", used])


def test_pruning_a_cache_that_is_not_there_makes_none(cache: ModelCache) -> None:
    assert cache.prune(set) == ()
    assert not cache.root.exists()


def test_nothing_is_removed_while_another_command_adds(cache: ModelCache, tmp_path: Path) -> None:
    digest, _ = _keep(cache, _tree(tmp_path / "model"))
    with cache.hold(), cache.hold():
        assert ModelCache(cache.root).prune(set) == ()
    assert cache.prune(set) == (digest,)


def test_what_is_in_use_is_asked_once_nobody_can_add(cache: ModelCache, tmp_path: Path) -> None:
    """A model that another command has just added, and recorded, is known then."""
    digest, _ = _keep(cache, _tree(tmp_path / "model"))

    def in_use() -> set[str]:
        assert ModelCache(cache.root).prune(set) == (), "the cache is not held"
        return {digest}

    assert cache.prune(in_use) == ()
    assert cache.entry(digest).is_dir()


def test_a_remote_place_is_remembered_until_its_model_is_removed(cache: ModelCache, tmp_path: Path) -> None:
    digest, _ = _keep(cache, _tree(tmp_path / "model"))
    cache.remember("s3://bucket/model etag", digest)
    assert cache.recall("s3://bucket/model etag") == digest
    assert cache.recall("s3://bucket/model other") is None
    cache.prune(set)
    assert cache.recall("s3://bucket/model etag") is None
    assert list((cache.root / ".remote").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write to the model cache .*/file/cache: Not a directory$"):
        ModelCache(tmp_path / "file/cache").keep(_tree(tmp_path / "model"), lambda: None)


_STOP_IN_THE_MIDDLE = """
import os, shutil, signal, sys
from pathlib import Path
from cortex.environments.model_cache import ModelCache
from cortex.environments.tree import Tree
real = shutil.copyfile
def copyfile(source, target):
    real(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfile = copyfile
ModelCache(Path(sys.argv[1])).keep(Tree.of(Path(sys.argv[2])), lambda: None)
"""


def test_a_command_killed_in_the_middle_leaves_nothing_that_counts(cache: ModelCache, tmp_path: Path) -> None:
    """Its directory is not taken for a model, and the next command removes it."""
    tree = _tree(tmp_path / "model")
    command = [sys.executable, "-c", _STOP_IN_THE_MIDDLE, cache.root, tmp_path / "model"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(cache.root.glob(f"{TEMPORARY}*"))) == 1
    digest, copied = _keep(cache, tree)
    assert copied
    assert _names(cache.root) == [".lock", digest]


_KEEP = """
import sys
from pathlib import Path
from cortex.environments.model_cache import ModelCache
from cortex.environments.tree import Tree
print(ModelCache(Path(sys.argv[1])).keep(Tree.of(Path(sys.argv[2])), lambda: None))
"""


def test_commands_that_cache_the_same_model_at_once_agree(cache: ModelCache, tmp_path: Path) -> None:
    tree = _tree(tmp_path / "model", bytes(20_000_000))
    command = [sys.executable, "-c", _KEEP, cache.root, tmp_path / "model"]
    commands = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        printed = {process.communicate(timeout=DEADLINE)[0].strip() for process in commands}
    finally:
        for process in commands:
            process.kill()
            process.wait()
    assert printed == {tree.digest}
    assert _names(cache.root) == [".lock", tree.digest]
    assert Tree.of(cache.entry(tree.digest)).digest == tree.digest
