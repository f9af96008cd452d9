"""`cortex render` and `cortex deploy --dry-run`: the environment says what, the command line prints it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TEXT = """
- name: one
  predictor: {type: python, path: predictor.py}
- name: two
  predictor: {type: python, path: predictor.py}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "predictor.py").touch()
    (tmp_path / "cortex.yaml").write_text(TEXT)
    return tmp_path / "cortex.yaml"


def test_dry_run_deploys_nothing(cortex: Callable[..., Any], world: Any, config: Path) -> None:
    ran = cortex("deploy", config, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert list(yaml.safe_load_all(ran.out)) == [{"provider": "local", "api": name} for name in ("one", "two")]
    assert [name for name, _ in world.calls] == ["render"]


def test_dry_run_shows_the_front_that_was_asked_for(cortex: Callable[..., Any], world: Any, config: Path) -> None:
    """The choice reaches what is shown, and is not carried out."""
    cortex("deploy", config, "--dry-run", "--front", "nginx:8090")
    assert world.calls == [("render", {"config": config, "front": "nginx:8090"})]


def test_dry_run_as_json(cortex: Callable[..., Any], config: Path) -> None:
    out = cortex("deploy", config, "--dry-run", "-o", "json").out
    assert json.loads(out) == [{"provider": "local", "api": name} for name in ("one", "two")]
    assert out.count("\n") == 1


@pytest.mark.parametrize(("name", "extra"), [("docker", {}), ("prod", {"registry": "example.com/x"}), ("local", {})])
def test_render_takes_a_provider_or_an_environment(
    name: str, extra: dict[str, str], cortex: Callable[..., Any], config: Path
) -> None:
    """A provider needs no configuration; an environment brings its settings."""
    cortex("env", "configure", "prod", "--provider", "docker", "--registry", "example.com/x")
    ran = cortex("render", name, config)
    [first, _] = yaml.safe_load_all(ran.out)
    assert first == {"provider": "local" if name == "local" else "docker", "api": "one", **extra}


def test_render_of_nobody(cortex: Callable[..., Any], config: Path) -> None:
    ran = cortex("render", "nowhere", config)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith('error: unable to find environment named "nowhere"')


def test_a_yaml_that_is_wrong_is_told_first(cortex: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text("- name: A")
    ran = cortex("render", "local", tmp_path / "cortex.yaml")
    assert ran.code == 1
    assert "error: " in ran.err
    assert "cortex.yaml:1: " in ran.err
