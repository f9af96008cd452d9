"""Two APIs on Inferentia: no NeuronCore is given twice, and none is lost."""

from pathlib import Path

import pytest

from cortex.environments import devices
from cortex.environments.devices import Device, Found
from cortex.environments.fields import FieldError
from cortex.environments.local import neuron_cores
from cortex.environments.state import Home
from cortex.spec import APISpec
from cortex.status import Status


def spec(name: str, inf: int = 1) -> APISpec:
    predictor = {"type": "tensorflow", "path": "predictor.py", "models": ({"name": "m", "path": "/cache/m"},)}
    return APISpec.model_validate({"name": name, "predictor": predictor, "compute": {"inf": inf}})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home on a machine of two chips."""
    monkeypatch.setattr(devices, "neuron", lambda: Found((Device("0", cores=4), Device("1"))))
    return Home(tmp_path)


def runs(home: Home, *specs: APISpec, in_use: tuple[str, ...] = ("r1",)) -> None:
    """Have APIs run, each with a revision for every name in ``in_use``."""
    for each in specs:
        directory = home.api(each.name)
        for revision in in_use:
            directory.revision(revision).mkdir(parents=True, exist_ok=True)
            (directory.revision(revision) / "resolved.json").write_text(each.model_dump_json())
        Status("live", "r1", "127.0.0.1", 8888, in_use=in_use).save(directory.path / "status.json")


def assigned(home: Home, api: APISpec) -> range:
    found = neuron_cores.assign(home, api)
    runs(home, api)
    return found


def test_each_api_has_a_chip_of_its_own(home: Home) -> None:
    """A redeployment keeps it, an API that asks for none gets none, and what was deleted is free again."""
    assert assigned(home, spec("a")) == range(4)
    assert assigned(home, spec("b")) == range(4, 8)
    assert assigned(home, spec("b")) == range(4, 8)
    assert assigned(home, spec("c", inf=0)) == range(0)
    home.api("a").remove()
    assert assigned(home, spec("b")) == range(4, 8)
    assert assigned(home, spec("d")) == range(4)


def test_when_none_is_left(home: Home) -> None:
    """One line: what there is, who has it, and what to do."""
    for name in ("b", "a"):
        assigned(home, spec(name))
    with pytest.raises(FieldError) as refused:
        neuron_cores.assign(home, spec("c"))
    assert str(refused.value) == (
        "compute.inf: no chip is left of this machine's 8 NeuronCores: a has 4-7, b has 0-3; `cortex delete a` first, "
        "or deploy on a machine with more"
    )


@pytest.mark.parametrize(
    ("moved", "in_use", "kept"),
    [
        pytest.param(0, ("r1",), False, id="moved to the CPU"),
        pytest.param(1, (), False, id="failed"),
        pytest.param(1, ("r0", "r1"), True, id="drains"),
    ],
)
def test_cores_are_held_while_something_runs_on_them(
    home: Home, moved: int, in_use: tuple[str, ...], kept: bool
) -> None:
    """The cpu and the accelerator yaml have the same name: to deploy one after the other gives the chip back."""
    assert assigned(home, spec("a")) == range(4)
    runs(home, spec("a", inf=moved), in_use=in_use)
    assert (neuron_cores.assign(home, spec("b")) == range(4, 8)) is kept


def test_cores_are_held_while_they_are_being_deployed(home: Home) -> None:
    """No process says so yet; the lock of the command does."""
    with home.lock("a"):
        assert neuron_cores.assign(home, spec("a")) == range(4)
        assert neuron_cores.assign(home, spec("b")) == range(4, 8)


def test_what_a_killed_command_left_is_free(home: Home) -> None:
    """Its record is there, and nothing holds it."""
    assert neuron_cores.assign(home, spec("a")) == range(4)
    assert neuron_cores.assign(home, spec("b")) == range(4)


def test_a_preview_assigns_nothing(home: Home) -> None:
    """It says what a deployment would get, beside what runs and what is in the same yaml, on any machine."""
    assigned(home, spec("a"))
    given = {"b": neuron_cores.expected(home, spec("b"), {})}
    given["c"] = neuron_cores.expected(home, spec("c"), given)
    assert given == {"b": range(4, 8), "c": range(8, 12)}
    assert neuron_cores.expected(home, spec("a"), {}) == range(4)
    assert assigned(home, spec("z")) == range(4, 8)
