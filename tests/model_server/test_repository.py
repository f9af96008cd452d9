import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cortex.model_server.config import AllVersions, ModelConfig, SpecificVersions
from cortex.model_server.crashes import Crashed
from cortex.model_server.lifecycle import Retries, State
from cortex.model_server.repository import Repository, RepositoryOptions
from cortex.model_server.status import Code, StatusError
from tests.waiting import DEADLINE, until


class _Servable:
    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class _Disk:
    """Version directories, and a load function that fails for those that are marked bad."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bad: dict[tuple[str, int], StatusError] = {}
        self.attempts: list[tuple[str, int]] = []
        self.loaded: list[_Servable] = []
        self.gate = threading.Event()
        self.gate.set()

    def add(self, name: str, *numbers: int) -> ModelConfig:
        for number in numbers:
            (self.root / name / str(number)).mkdir(parents=True)
        return self.config(name)

    def config(self, name: str, **options: Any) -> ModelConfig:
        return ModelConfig(name, self.root / name, **options)

    def load(self, name: str, version: int, directory: Path) -> Any:
        assert directory == self.root / name / str(version)
        self.attempts.append((name, version))
        assert self.gate.wait(30)
        if error := self.bad.get((name, version)):
            raise error
        servable = _Servable(name, version)
        self.loaded.append(servable)
        return servable


@pytest.fixture
def disk(tmp_path: Path) -> _Disk:
    return _Disk(tmp_path)


Make = Callable[..., Repository]


@pytest.fixture
def make(disk: _Disk) -> Iterator[Make]:
    """Return a function that makes a repository of the disk; it is closed after the test."""
    made: list[Repository] = []

    def make_one(*models: ModelConfig, **options: Any) -> Repository:
        options.setdefault("retries", Retries(0))
        options.setdefault("poll_interval", 0.01)
        repository = Repository(disk.load, RepositoryOptions(**options))
        made.append(repository)
        repository.start(models, lambda: False)
        return repository

    yield make_one
    disk.gate.set()
    for repository in made:
        repository.close()


def _version(repository: Repository, name: str, version: int | None = None, label: str | None = None) -> int:
    with repository.lease(name, version, label) as servable:
        return servable.version


def _states(repository: Repository, name: str) -> dict[int, State]:
    return {number: state for number, state, _ in repository.statuses(name)}


def _error(act: Callable[[], Any]) -> str:
    with pytest.raises(StatusError) as caught:
        act()
    return str(caught.value)


def test_the_newest_version_serves(disk: _Disk, make: Make) -> None:
    """By default the latest version is loaded, and it alone."""
    repository = make(disk.add("m", 1, 2))
    assert _version(repository, "m") == 2
    assert disk.attempts == [("m", 2)]


def test_what_is_not_there_is_not_found(disk: _Disk, make: Make) -> None:
    """Missing models, versions and labels end in TF Serving's statuses."""
    repository = make(disk.add("m", 1))
    assert _error(lambda: _version(repository, "n")) == "NOT_FOUND: Servable not found for request: Latest(n)"
    assert _error(lambda: _version(repository, "m", 7)) == "NOT_FOUND: Servable not found for request: Specific(m, 7)"
    assert (
        _error(lambda: _version(repository, "m", label="x"))
        == "INVALID_ARGUMENT: Unrecognized servable version label: x"
    )
    assert _error(lambda: repository.statuses("n")) == "NOT_FOUND: Could not find any versions of model n"
    assert _error(lambda: repository.statuses("m", 7)) == "NOT_FOUND: Could not find version 7 of model m"


def test_a_new_version_replaces_the_old_one_once_it_serves(disk: _Disk, make: Make) -> None:
    """The new version is loaded while the old one serves; then the old one is closed."""
    repository = make(disk.add("m", 1))
    disk.gate.clear()
    disk.add("m", 2)
    until(lambda: ("m", 2) in disk.attempts)
    assert _version(repository, "m") == 1
    assert _states(repository, "m") == {2: State.LOADING, 1: State.AVAILABLE}
    disk.gate.set()
    until(lambda: _states(repository, "m") == {2: State.AVAILABLE, 1: State.END})
    assert _version(repository, "m") == 2
    assert [servable.is_closed for servable in disk.loaded] == [True, False]


def test_a_new_version_that_fails_leaves_the_old_one_serving(disk: _Disk, make: Make) -> None:
    """A failure never takes the old version down; it is told in the status, and not tried again and again."""
    repository = make(disk.add("m", 1))
    disk.bad["m", 2] = StatusError(Code.INVALID_ARGUMENT, "corrupt")
    disk.add("m", 2)
    until(lambda: _states(repository, "m").get(2) is State.END)
    assert _version(repository, "m") == 1
    assert str(repository.statuses("m", 2)[0][2]) == "INVALID_ARGUMENT: corrupt"
    disk.add("other", 1)
    repository.reload([disk.config("m"), disk.config("other")])
    assert disk.attempts.count(("m", 2)) == 1


def test_a_new_version_that_is_taken_away_again_leaves_the_old_one_serving(disk: _Disk, make: Make) -> None:
    """The old version, which serves all the time, is wanted again: it is neither unloaded nor loaded anew."""
    repository = make(disk.add("m", 1))
    disk.bad["m", 2] = StatusError(Code.INVALID_ARGUMENT, "corrupt")
    disk.add("m", 2)
    until(lambda: _states(repository, "m").get(2) is State.END)
    (disk.root / "m" / "2").rmdir()
    disk.bad.clear()
    for _ in range(3):
        repository.reload([disk.config("m")])  # looks at the disk
        assert _version(repository, "m") == 1
    disk.add("m", 2)
    until(lambda: _states(repository, "m") == {2: State.AVAILABLE, 1: State.END})
    assert disk.attempts == [("m", 1), ("m", 2), ("m", 2)]


def test_the_new_version_serves_until_the_old_one_is_back(disk: _Disk, make: Make) -> None:
    """When the new version's directory goes away, it is unloaded only once the one before it serves."""
    repository = make(disk.add("m", 1))
    with repository.lease("m"):
        disk.add("m", 2)
        until(lambda: _states(repository, "m") == {2: State.AVAILABLE, 1: State.UNLOADING})
        (disk.root / "m" / "2").rmdir()
        repository.reload([disk.config("m")])
        assert _version(repository, "m") == 2
        disk.gate.clear()
    until(lambda: disk.attempts.count(("m", 1)) == 2)
    assert _version(repository, "m") == 2
    disk.gate.set()
    until(lambda: _states(repository, "m") == {2: State.END, 1: State.AVAILABLE})


def test_of_old_versions_the_newest_is_enough(disk: _Disk, make: Make) -> None:
    """While no wanted version serves, one old version is kept for the requests; the others are unloaded."""
    disk.add("m", 1, 2)
    repository = make(disk.config("m", policy=AllVersions()))
    disk.bad["m", 3] = StatusError(Code.INVALID_ARGUMENT, "corrupt")
    disk.add("m", 3)
    repository.reload([disk.config("m", policy=SpecificVersions(frozenset({3})))])
    until(lambda: _states(repository, "m") == {3: State.END, 2: State.AVAILABLE, 1: State.END})


def test_a_version_that_crashed_does_not_count_as_the_latest(disk: _Disk, make: Make, tmp_path: Path) -> None:
    """The one before it serves; labels go to what serves, and a model of which every version crashed has none."""
    for number in (2, 3):
        disk.bad["m", number] = Crashed(disk.root / "m" / str(number), 3, tmp_path / "record")
    disk.bad["n", 1] = Crashed(disk.root / "n" / "1", 3, tmp_path / "record")
    disk.add("m", 1, 2, 3)
    disk.add("n", 1)
    repository = make(disk.config("m", labels={"new": 3, "old": 1}), disk.config("n", labels={"x": 1}))
    assert _version(repository, "m", label="old") == 1
    assert _states(repository, "m") == {3: State.END, 2: State.END, 1: State.AVAILABLE}
    assert "has ended the process 3 times" in str(repository.statuses("m", 3)[0][2])
    assert "Unrecognized servable version label: new" in _error(lambda: _version(repository, "m", label="new"))
    assert "Latest(n)" in _error(lambda: _version(repository, "n"))
    disk.add("m", 4)
    until(lambda: _states(repository, "m").get(4) is State.AVAILABLE and _states(repository, "m")[1] is State.END)
    assert len(disk.attempts) == 5
    disk.bad["new", 2] = Crashed(disk.root / "new" / "2", 3, tmp_path / "record")
    repository.reload([disk.config("m"), disk.add("new", 1, 2)])
    assert _version(repository, "new") == 1


def test_a_version_in_use_is_closed_after_its_last_request(disk: _Disk, make: Make) -> None:
    """A request holds its version: it is UNLOADING until the request is done."""
    repository = make(disk.add("m", 1))
    with repository.lease("m") as servable:
        disk.add("m", 2)
        until(lambda: _states(repository, "m") == {2: State.AVAILABLE, 1: State.UNLOADING})
        assert not servable.is_closed  # type: ignore[attr-defined]
        assert _version(repository, "m") == 2
    until(lambda: _states(repository, "m")[1] is State.END)
    assert servable.is_closed  # type: ignore[attr-defined]


def test_a_version_that_is_taken_away_at_once_has_not_failed(
    disk: _Disk, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that goes while its load has yet to end is UNLOADING for as long as its engine closes, and then END."""
    n, m = disk.add("n", 1), disk.add("m", 1)
    repository = make(n, poll_interval=0)
    closing, may_close = threading.Event(), threading.Event()

    def close(_: _Servable) -> None:
        closing.set()
        assert may_close.wait(30)

    class TakeAway(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "Successfully loaded servable version {name: m version: 1}":
                repository.reload([n])
                assert closing.wait(30)

    caplog.set_level("INFO")
    monkeypatch.setattr(logging.getLogger("cortex.model_server.lifecycle"), "handlers", [TakeAway()])
    with monkeypatch.context() as patched:
        patched.setattr(_Servable, "close", close)
        repository.reload([n, m])
        until(lambda: closing.is_set() and not any(each.name.startswith("load") for each in threading.enumerate()))
        try:
            assert repository.statuses("m") == [(1, State.UNLOADING, None)]
        finally:
            may_close.set()
        until(lambda: repository.statuses("m") == [(1, State.END, None)])


def test_a_model_comes_back_without_a_poll(disk: _Disk, make: Make) -> None:
    """One that is taken away and wanted again while a request still holds it is loaded again once it is closed."""
    a, b = disk.add("a", 1), disk.add("b", 1)
    repository = make(a, b, poll_interval=0)
    with ThreadPoolExecutor(1) as pool:
        with repository.lease("b"):
            repository.reload([a])
            reload = pool.submit(repository.reload, [a, b])
            until(lambda: repository.is_ready() is False)
        reload.result(DEADLINE)
    assert _version(repository, "b") == 1


def test_policies_are_followed_in_both_directions(disk: _Disk, make: Make) -> None:
    """Specific versions, all versions, and a roll-back to an older one."""
    disk.add("m", 1, 2, 3)
    repository = make(disk.config("m", policy=AllVersions()))
    assert _states(repository, "m") == dict.fromkeys((3, 2, 1), State.AVAILABLE)
    repository.reload([disk.config("m", policy=SpecificVersions(frozenset({1})))])
    until(lambda: _states(repository, "m") == {3: State.END, 2: State.END, 1: State.AVAILABLE})
    repository.reload([disk.config("m")])
    until(lambda: _states(repository, "m") == {3: State.AVAILABLE, 2: State.END, 1: State.END})


def test_models_that_the_new_list_lacks_are_unloaded(disk: _Disk, make: Make) -> None:
    """A reload replaces the whole wanted state, and waits for what is new."""
    a, b = disk.add("a", 1), disk.add("b", 1)
    repository = make(a)
    repository.reload([b])
    assert _version(repository, "b") == 1
    until(lambda: _states(repository, "a") == {1: State.END})
    assert repository.is_ready()


def test_a_base_path_that_vanishes_changes_nothing(disk: _Disk, make: Make) -> None:
    """A file system that goes away does not unload a model; a version directory that goes away does."""
    repository = make(disk.add("m", 1, 2))
    (disk.root / "m").rename(disk.root / "gone")
    disk.add("other", 1)
    repository.reload([disk.config("m"), disk.config("other")])
    assert _version(repository, "m") == 2
    (disk.root / "gone").rename(disk.root / "m")
    (disk.root / "m" / "2").rmdir()
    until(lambda: _states(repository, "m") == {2: State.END, 1: State.AVAILABLE})


def test_loads_are_retried(disk: _Disk, make: Make) -> None:
    """A failed load is tried again as often as asked; one that no retry can mend is not."""
    disk.bad["a", 1] = StatusError(Code.DATA_LOSS, "half a file")
    disk.bad["b", 1] = StatusError(Code.FAILED_PRECONDITION, "recorded answers differ")
    models = [disk.add("a", 1), disk.add("b", 1)]
    text = _error(lambda: make(*models, retries=Retries(2, 0.01)))
    assert disk.attempts.count(("a", 1)) == 3
    assert disk.attempts.count(("b", 1)) == 1
    assert text.startswith("UNKNOWN: 2 servable(s) did not become available: {")
    assert "{{name: a version: 1} due to error: DATA_LOSS: half a file}, " in text
    assert "{{name: b version: 1} due to error: FAILED_PRECONDITION: recorded answers differ}, " in text


def test_an_unexpected_failure_of_a_load_is_a_status(disk: _Disk, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an engine raises becomes the error of the version; the log says where it was raised."""
    disk.bad["m", 1] = ZeroDivisionError("oops")  # type: ignore[assignment]
    model = disk.add("m", 1)
    assert "due to error: INTERNAL: ZeroDivisionError: oops" in _error(lambda: make(model))
    assert ", in load\n" in caplog.text


def test_a_file_that_cannot_be_read_is_told_without_a_traceback(
    disk: _Disk, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is all that there is to say of it."""
    disk.bad["m", 1] = PermissionError(13, "Permission denied", "the file")  # type: ignore[assignment]
    model = disk.add("m", 1)
    assert "INTERNAL: PermissionError: [Errno 13] Permission denied: 'the file'" in _error(lambda: make(model))
    assert "INTERNAL: PermissionError" in caplog.text
    assert "Traceback" not in caplog.text


def test_one_good_version_is_enough_to_start(disk: _Disk, make: Make) -> None:
    """A model starts when one of its versions serves; the other's error is in its status."""
    disk.bad["m", 2] = StatusError(Code.INVALID_ARGUMENT, "corrupt")
    disk.add("m", 1, 2)
    repository = make(disk.config("m", policy=AllVersions()))
    assert _version(repository, "m") == 1


def test_start_waits_for_a_first_version(disk: _Disk, make: Make) -> None:
    """A base path without versions is waited for."""
    (disk.root / "m").mkdir()
    timer = threading.Timer(0.1, lambda: disk.add("m", 1))
    timer.start()
    repository = make(disk.config("m"))
    timer.join()
    assert _version(repository, "m") == 1


def test_start_can_be_interrupted(disk: _Disk) -> None:
    """An interrupt ends the wait."""
    (disk.root / "m").mkdir()
    repository = Repository(disk.load, RepositoryOptions(poll_interval=0))
    repository.start([disk.config("m")], lambda: True)
    assert not repository.is_ready()


LABEL_ERROR = (
    "FAILED_PRECONDITION: Request to assign label to version 2 of model m, "
    "which is not currently available for inference"
)


def test_labels(disk: _Disk, make: Make) -> None:
    """A label names an available version; moving it is a reload; one on another version changes nothing."""
    disk.add("m", 1)
    only = SpecificVersions(frozenset({1}))  # or the poll might load version 2 before the reload asks for it
    repository = make(disk.config("m", policy=only, labels={"stable": 1}))
    assert _version(repository, "m", label="stable") == 1
    disk.add("m", 2)
    both = SpecificVersions(frozenset({1, 2}))
    assert _error(lambda: repository.reload([disk.config("m", policy=both, labels={"stable": 2})])) == LABEL_ERROR
    assert _version(repository, "m", label="stable") == 1
    repository.reload([disk.config("m", policy=both, labels={"stable": 1})])
    until(lambda: _states(repository, "m") == {2: State.AVAILABLE, 1: State.AVAILABLE})
    repository.reload([disk.config("m", policy=both, labels={"stable": 2, "old": 1})])
    assert (_version(repository, "m", label="stable"), _version(repository, "m", label="old")) == (2, 1)
    assert _error(lambda: repository.reload([disk.config("m", policy=only, labels={"stable": 2})])) == LABEL_ERROR
    assert _states(repository, "m") == {2: State.AVAILABLE, 1: State.AVAILABLE}, "nothing has changed"
    assert (_version(repository, "m", label="stable"), _version(repository, "m", label="old")) == (2, 1)


def test_a_label_moves_before_its_version_goes(disk: _Disk, make: Make) -> None:
    """One reload may move a label and drop the version it was on: whoever asks by label meanwhile is answered."""
    disk.add("m", 1, 2)
    repository = make(disk.config("m", policy=AllVersions(), labels={"stable": 1}))
    new = [disk.config("m", policy=SpecificVersions(frozenset({2})), labels={"stable": 2}), disk.add("n", 1)]
    disk.gate.clear()
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(repository.reload, new)
        try:
            until(lambda: _states(repository, "m")[1] is State.END)
            assert _version(repository, "m", label="stable") == 2
        finally:
            disk.gate.set()
        reload.result()


def test_a_label_goes_to_what_serves_beside_a_newer_version_that_does_not(disk: _Disk, make: Make) -> None:
    """A newer version that loads, failed or is gone again does not count."""
    repository = make(disk.add("m", 1))
    disk.gate.clear()
    disk.add("m", 2)
    until(lambda: _states(repository, "m") == {2: State.LOADING, 1: State.AVAILABLE})
    repository.reload([disk.config("m", labels={"loading": 1})])
    disk.bad["m", 2] = StatusError(Code.INVALID_ARGUMENT, "bad")
    disk.gate.set()
    until(lambda: _states(repository, "m") == {2: State.END, 1: State.AVAILABLE})
    repository.reload([disk.config("m", labels={"failed": 1})])
    (disk.root / "m" / "2").rmdir()
    repository.reload([disk.config("m", labels={"gone": 1})])
    assert _version(repository, "m", label="gone") == 1


def test_an_unused_label_may_run_ahead_when_allowed(disk: _Disk, make: Make) -> None:
    """With the flag, a new label may name a version that is still to come; a label in use may not move there."""
    disk.add("m", 1)
    repository = make(disk.config("m", labels={"stable": 1}), labels_for_unavailable=True)
    repository.reload([disk.config("m", labels={"stable": 1, "next": 2})])
    assert "Specific(m, 2)" in _error(lambda: _version(repository, "m", label="next"))
    assert _error(lambda: repository.reload([disk.config("m", labels={"stable": 2})])) == LABEL_ERROR


def test_a_failed_reload_names_the_models(disk: _Disk, make: Make) -> None:
    """A reload whose new models fail is UNKNOWN; what served goes on."""
    good = disk.add("good", 1)
    repository = make(good)
    disk.bad["bad", 1] = StatusError(Code.INVALID_ARGUMENT, "corrupt")
    assert _error(lambda: repository.reload([good, disk.add("bad", 1)])) == (
        "UNKNOWN: 1 model(s) did not become available: "
        "{{{name: bad version: 1} due to error: INVALID_ARGUMENT: corrupt}, }"
    )
    assert _version(repository, "good") == 1
