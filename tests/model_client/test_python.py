"""PythonClient loads models through the user's load_model."""

import pytest

from cortex.errors import UserError
from cortex.model_client import PythonClient
from cortex.spec import SINGLE_MODEL, Model


@pytest.fixture
def models(tmp_path):
    for folder in ("a/1", "a/3", "b"):
        (tmp_path / folder).mkdir(parents=True)
    return tuple(Model(name=name, path=str(tmp_path / name)) for name in "ab")


def test_models_are_loaded_once_by_version(models):
    """get_model returns what load_model made of the version's directory, and remembers it."""
    client, paths = PythonClient(models), []
    client.set_load_method(lambda path: paths.append(path) or path)
    assert client.get_model("a").endswith("a/3")
    assert client.get_model("a", "1").endswith("a/1")
    assert client.get_model("b").endswith("b")
    assert client.get_model("a") == client.get_model("a", "3")
    assert len(paths) == 3
    assert set(client.metadata) == {"a-1", "a-3", "b-1"}


def test_cache_size_bounds_what_is_in_memory(models):
    """With cache_size the model that was used longest ago is dropped."""
    client, loads = PythonClient(models, cache_size=1), []
    client.set_load_method(lambda path: loads.append(path))
    for name in ("a", "b", "b", "a"):
        client.get_model(name)
    assert len(loads) == 3


def test_a_model_may_be_made_of_another(models):
    """load_model may ask for another model, as one that combines several does."""
    client = PythonClient(models)
    client.set_load_method(lambda path: path if path.endswith("b") else (path, client.get_model("b")))
    assert client.get_model("a") == (str(models[0].path) + "/3", models[1].path)


def test_refusals(models, tmp_path):
    """Models and versions that do not exist, and a call before the predictor is there, are refused."""
    client = PythonClient(models)
    with pytest.raises(UserError, match="once __init__ of the PythonPredictor has returned"):
        client.get_model("a")
    with pytest.raises(UserError, match="model_name was not specified"):
        client.get_model()
    with pytest.raises(UserError, match="'c' model wasn't found"):
        client.get_model("c")
    with pytest.raises(UserError, match="model 'a' has no version '2'"):
        client.get_model("a", "2")
    with pytest.raises(UserError, match="does not exist"):
        PythonClient((Model(path=str(tmp_path / "gone")),))


def test_a_single_model_needs_no_name(tmp_path):
    """The model of model_path is the one that is meant."""
    client = PythonClient((Model(path=str(tmp_path)),))
    client.set_load_method(lambda path: "loaded")
    assert client.get_model() == "loaded"
    assert set(client.metadata) == {f"{SINGLE_MODEL}-1"}
