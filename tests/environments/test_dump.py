"""What is written as YAML is the same to whoever reads it."""

from pathlib import Path

import pytest
import yaml

from cortex import cli
from cortex.environments.docker import compose_file
from cortex.environments.registry import Registry
from cortex.spec.nodes import Loader  # as Go reads numbers, which wrote Cortex, Compose and kubectl

TEXTS = [
    *(
        "1e3",
        "12345678901234e6",
        "1.5e3",
        ".5e3",
        "08",
        "0123456789012389",
        "0o17",
        "0O17",
        "0b12",
        "1.",
        "-.5",
        "+1_0",
    ),
    *("2020-1-1", "12", "1.5", "0x1f", "yes", "null", "~", "", "10:30"),
]
OTHERS = [1, -1, 1.5, 1e300, 1e-7, float("inf"), True, None, [], {"a": 1}, "4Gi", "200m", "1.2.3", "cafe12", "é"]
YAML = """\
- name: iris
  predictor: {type: python, path: predictor.py, env: {A: "1e3", B: "08"}}
"""


def test_a_text_is_never_a_number() -> None:
    """Also where PyYAML alone would leave its quotes out; and numbers stay numbers."""
    written = compose_file.text({"texts": TEXTS, "others": OTHERS})
    assert yaml.safe_load(written) == {"texts": TEXTS, "others": OTHERS}
    for node, expected in zip(yaml.compose(written, Loader=Loader).value[0][1].value, TEXTS, strict=True):
        assert (node.tag, node.value, node.style) == ("tag:yaml.org,2002:str", expected, "'"), "it has no quotes"
    assert "- 1.5\n- 1.0e+300\n" in written
    assert "- 4Gi\n- 200m\n- 1.2.3\n" in written


@pytest.mark.parametrize("provider", ["docker", "kubernetes", "local"])
def test_rendered_environments_are_texts(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubernetes refuses a variable that is a number; Compose would set another value."""
    (tmp_path / "predictor.py").touch()
    (tmp_path / "cortex.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["render", provider, "cortex.yaml"], Registry(tmp_path / "home")) == 0
    out = capsys.readouterr().out
    assert "'1e3'" in out
    assert "'08'" in out
