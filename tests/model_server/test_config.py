from pathlib import Path

import pytest

from cortex.model_server import config
from cortex.model_server.base_paths import BasePaths, find
from cortex.model_server.config import (
    AllVersions,
    LatestVersions,
    LoggingConfig,
    ModelConfig,
    Policy,
    SpecificVersions,
)
from cortex.model_server.status import Code, StatusError


def _read(tmp_path: Path, text: str) -> tuple[ModelConfig, ...] | None:
    path = tmp_path / "models.config"
    path.write_text(text)
    return config.read(path)


def test_a_whole_config(tmp_path: Path) -> None:
    """Every field of a model is read; commas between fields are allowed; the default policy is the latest version."""
    models = _read(
        tmp_path,
        """
        model_config_list {
          config { name: "a", base_path: "/models/a", model_platform: "tensorflow" },
          config {
            name: "b" base_path: "file:///models/b"
            model_version_policy { specific { versions: 3 versions: 5 } }
            version_labels { key: "stable" value: 3 }
          }
          config { name: "c" base_path: "/c" model_version_policy { latest { num_versions: 2 } } }
          config { name: "d" base_path: "/d" model_version_policy { all {} } }
          config { name: "e" base_path: "/e" model_version_policy { latest {} } }
        }
        """,
    )
    assert models == (
        ModelConfig("a", Path("/models/a"), LatestVersions(1)),
        ModelConfig("b", Path("/models/b"), SpecificVersions(frozenset({3, 5})), {"stable": 3}),
        ModelConfig("c", Path("/c"), LatestVersions(2)),
        ModelConfig("d", Path("/d"), AllVersions()),
        ModelConfig("e", Path("/e"), LatestVersions(1)),
    )


def test_an_empty_config_asks_for_nothing(tmp_path: Path) -> None:
    """A config without a list is no wish at all; one with an empty list wants no models."""
    assert _read(tmp_path, "") is None
    assert _read(tmp_path, "model_config_list {}") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config {", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        ("nonsense: 1", "Invalid protobuf file: '"),
        ("custom_model_config {}", "does not yet support custom model config"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" } }',
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "models/a" } }',
            "Expected model a to have an absolute path or URI; got base_path()=models/a",
        ),
        ('model_config_list { config { name: "a" base_path: "s3://a" } }', "only file:// is supported"),
        ('model_config_list { config { base_path: "/a" } }', "has no name"),
        ('model_config_list { config { name: "a" base_path: "/a\\0b" } }', "Model a has a path with a null character"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "caffe" } }', "'caffe'"),
    ],
)
def test_a_bad_config_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    """A config that cannot be used is INVALID_ARGUMENT, with TF Serving's text where it has one."""
    with pytest.raises(StatusError) as caught:
        _read(tmp_path, text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert message in caught.value.message


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(StatusError, match=r"nowhere\.config"):
        config.read(tmp_path / "nowhere.config")


def test_version_directories_are_integers(tmp_path: Path) -> None:
    """Names that are integers are versions, with leading zeros too; files and other names are not."""
    for name in ("1", "00000123", "latest", "2.5", "-3", "99999999999999999999", "\u0661"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert find(tmp_path) == {1: tmp_path / "1", 123: tmp_path / "00000123"}


def test_one_of_two_spellings_of_a_version_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``1`` and ``01`` are the same version: one is served, the other warned of, once and not at every poll."""
    paths, model = BasePaths(), ModelConfig("m", tmp_path)
    for name in ("1", "01"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        assert paths.wanted(model) == {1: tmp_path / "01"}
    assert caplog.text.count("Duplicate version directories") == 1
    (tmp_path / "001").mkdir()
    assert paths.wanted(model) == {1: tmp_path / "001"}
    assert caplog.text.count("Duplicate version directories") == 2


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (LatestVersions(), [9]),
        (LatestVersions(2), [9, 4]),
        (LatestVersions(99), [9, 4, 1]),
        (AllVersions(), [9, 4, 1]),
        (SpecificVersions(frozenset({1, 4})), [4, 1]),
        (SpecificVersions(frozenset({1, 2})), [1]),
    ],
)
def test_policies(tmp_path: Path, policy: Policy, want: list[int]) -> None:
    """A policy chooses among the versions there are, newest first."""
    for number in (1, 4, 9):
        (tmp_path / str(number)).mkdir()
    assert list(BasePaths().wanted(ModelConfig("m", tmp_path, policy)) or {}) == want


def test_a_base_path_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A base path without versions, or none at all, is told once, not at every poll; it comes back with news."""
    paths, model = BasePaths(), ModelConfig("m", tmp_path / "base")
    assert paths.wanted(model) is None
    assert paths.wanted(model) is None
    assert caplog.text.count("Could not find base path") == 1
    (tmp_path / "base").mkdir()
    assert paths.wanted(model) == {}
    assert paths.wanted(model) == {}
    assert caplog.text.count("Did you forget to name your leaf directory as a number (eg. '/1/')?") == 1


def test_a_base_path_that_goes_away_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be read; it must not look like one that has no versions any more."""
    base, is_dir = tmp_path / "base", Path.is_dir
    (base / "1").mkdir(parents=True)

    def late(path: Path) -> bool:
        base.rename(tmp_path / "gone")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", late)
    with pytest.raises(FileNotFoundError):
        find(base)


def _logging(text: str) -> str:
    return f'model_config_list {{ config {{ name: "a" base_path: "/a" logging_config {{ {text} }} }} }}'


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            'log_collector_config { type: "tfrecord" filename_prefix: "/a/b" } sampling_config { sampling_rate: 0.5 }',
            LoggingConfig("/a/b", 0.5),
        ),
        ('log_collector_config { filename_prefix: "/a" } sampling_config { sampling_rate: 1 }', LoggingConfig("/a", 1)),
        ('log_collector_config { filename_prefix: "/a" } sampling_config { sampling_rate: 0 }', None),
        ("", None),
    ],
)
def test_request_logs(tmp_path: Path, text: str, want: LoggingConfig | None) -> None:
    """A model asks for its log in logging_config; a rate of zero is no log."""
    models = _read(tmp_path, _logging(text))
    assert models is not None
    assert models[0].logging == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampling_config { sampling_rate: 1.5 }", "sampling_rate must be between 0 and 1, not 1.5"),
        ("sampling_config { sampling_rate: nan }", "sampling_rate must be between 0 and 1, not nan"),
        ('log_collector_config { type: "kafka" }', "Cannot find LogCollector::Factory for type: kafka"),
        ("sampling_config { sampling_rate: 1 }", "filename_prefix must be an absolute path, not ''"),
        ("custom_logging_config {}", "only log_collector_config and sampling_config.sampling_rate are supported"),
    ],
)
def test_a_log_that_cannot_be_kept_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """What logging_config asks for is done or refused, never ignored; the message names the model."""
    with pytest.raises(StatusError) as caught:
        _read(tmp_path, _logging(text))
    assert "Model a: logging_config: " in caught.value.message
    assert message in caught.value.message


def test_the_model_of_the_flags_is_checked_alike() -> None:
    """--model_base_path has the rules of base_path: absolute, or a file:// URI."""
    assert config.single("m", "file:///models/m") == ModelConfig("m", Path("/models/m"))
    with pytest.raises(StatusError, match=r"Expected model m to have an absolute path or URI; got base_path\(\)=a/m"):
        config.single("m", "a/m")
