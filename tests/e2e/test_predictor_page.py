"""The page on predictors: its example is made, deployed and asked as it stands there."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.deployment import ROOT, Cortex, post

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs/predictor.md").read_text()
FILES = re.findall(r"^`([\w.]+)` [^\n]*:\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
(ANSWER,) = re.findall(r"^```\n\n    (\[.*\])$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def endpoint(cortex: Cortex, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, trained and deployed by the page's own commands."""
    project = tmp_path_factory.mktemp("circle")
    for name, text in FILES:
        (project / name).write_text(text)
    train, deploy, _ = COMMANDS.splitlines()
    cortex.shell(train, cwd=project)
    cortex.shell(deploy, cwd=project)
    return str(cortex.get("circle")["endpoint"])


def test_the_example_answers_what_the_page_says(cortex: Cortex, endpoint: str, tmp_path: Path) -> None:
    """Its third command, at the port that the API got."""
    curl = COMMANDS.splitlines()[2].replace("http://localhost:8888", f"{endpoint} --silent")
    assert json.loads(cortex.shell(curl, cwd=tmp_path)) == json.loads(ANSWER)


def test_what_the_example_refuses_is_a_400(endpoint: str) -> None:
    """With the words of the predictor."""
    answer = post(endpoint, {"points": [[0, 0]] * 101})
    assert (answer.status_code, answer.text) == (400, "101 points, the limit is 100")


def test_where_its_inputs_are_told(cortex: Cortex, endpoint: str) -> None:
    """`cortex get` has the inputs."""
    assert re.search(r"points +float32 +\(-1, 2\)", cortex("get", "circle"))
