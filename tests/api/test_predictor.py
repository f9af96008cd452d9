"""Finding and checking the predictor class: Cortex's rules and messages."""

import sys

import pytest

from cortex.api.predictor import MODULE, construct, load_class
from cortex.errors import NotStarted, UserError
from cortex.spec import Predictor

GOOD = {
    "tensorflow": "class TensorFlowPredictor:\n def __init__(self, tensorflow_client, config): pass\n",
    "onnx": "class ONNXPredictor:\n def __init__(self, onnx_client, config): pass\n",
    "python": "class PythonPredictor:\n def __init__(self, config): pass\n",
}
PREDICT = " def predict(self, payload): pass\n"
INIT = " def __init__(self, config): pass\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write a predictor.py and load its class, leaving this process as it was."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, MODULE, None)

    def run(source, kind="python", **fields):
        (tmp_path / "predictor.py").write_text(source)
        return load_class(Predictor(type=kind, path="predictor.py", **fields), tmp_path)

    return run


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    "arguments",
    ["", ", payload", ", headers, batch_id, query_params, payload", ", payload, *, extra=1", ", payload, **others"],
)
def test_accepted(load, kind, arguments):
    """predict may ask for any of its arguments in any order; keyword-only ones are not looked at."""
    found = load(GOOD[kind] + f" def predict(self{arguments}): pass\n", kind)
    assert found.__module__ == MODULE


@pytest.mark.parametrize("kind", GOOD)
def test_job_spec_is_optional(load, kind):
    """The constructor may ask for job_spec, which is None for a realtime API."""
    source = GOOD[kind].replace("config): pass", "config, job_spec): self.seen = job_spec") + PREDICT
    construct(load(source, kind), Predictor(type=kind, path="predictor.py"), None)


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("tensorflow", "", "TensorFlowPredictor class is not defined"),
        ("onnx", "ONNXPredictor = 1", "ONNXPredictor class is not defined"),
        ("python", "class PythonPredictor:\n" + INIT, 'required function "predict" is not defined'),
        ("python", "class PythonPredictor:\n predict = 1\n" + INIT, '"predict" is defined, but is not a function'),
        (
            "python",
            "class PythonPredictor:\n def __init__(self): pass\n" + PREDICT,
            'invalid signature for function "__init__(self)": "config" is a required argument, but was not provided',
        ),
        (
            "tensorflow",
            "class TensorFlowPredictor:\n" + INIT + PREDICT,
            'invalid signature for function "__init__(self, config)": '
            '"tensorflow_client" is a required argument, but was not provided',
        ),
        (
            "python",
            GOOD["python"] + " def predict(self, data): pass\n",
            'invalid signature for function "predict(self, data)": "data" is not a supported argument',
        ),
        (
            "python",
            GOOD["python"] + " def predict(payload, self): pass\n",
            'invalid signature for function "predict(payload, self)": "self" must be the first argument',
        ),
        (
            "python",
            GOOD["python"] + " def predict(): pass\n",
            'invalid signature for function "predict()": "self" is a required argument, but was not provided',
        ),
        (
            "python",
            GOOD["python"] + PREDICT + " def post_predict(self, batch_id): pass\n",
            'invalid signature for function "post_predict(self, batch_id)": "batch_id" is not a supported argument',
        ),
        ("python", "1 / 0", "ZeroDivisionError: division by zero"),
        ("python", "raise SystemExit(4)", "SystemExit: 4"),
    ],
)
def test_refused(load, kind, source, message):
    """Each rule has its message, which names the file."""
    with pytest.raises(UserError) as caught:
        load(source, kind)
    assert str(caught.value) == f"error in predictor.py: {message}"


def test_a_syntax_error_names_its_line(load):
    """What Python says of the file is passed on."""
    with pytest.raises(UserError, match=r"error in predictor\.py: SyntaxError: .*line 2"):
        load("x = 1\nclass\n")


def test_models_ask_for_load_model(load, tmp_path):
    """A python predictor with models needs load_model and python_client."""
    models = {"models": ({"path": str(tmp_path)},)}
    with pytest.raises(UserError, match='required function "load_model" is not defined'):
        load(GOOD["python"] + PREDICT, **models)
    with pytest.raises(UserError, match='"model_path" is a required argument'):
        load(GOOD["python"] + PREDICT + " def load_model(self): pass\n", **models)
    with pytest.raises(UserError, match='"python_client" is a required argument'):
        load(GOOD["python"] + PREDICT + " def load_model(self, model_path): pass\n", **models)


@pytest.mark.parametrize("kind", GOOD)
def test_load_model_is_a_name_like_any_other_without_models(load, kind):
    """Cortex before 0.22 had no such hook, and a predictor may have a method of its own by that name."""
    load(GOOD[kind] + PREDICT + " def load_model(self, name): pass\n", kind)


def test_a_missing_file(tmp_path, monkeypatch):
    """A path that is not there is refused by name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match=r"error in gone\.py: file does not exist"):
        load_class(Predictor(type="python", path="gone.py"), tmp_path)


def test_the_class_may_come_from_elsewhere(load, tmp_path):
    """predictor.py may import the class that it names."""
    (tmp_path / "elsewhere_for_test.py").write_text(GOOD["python"] + PREDICT)
    assert load("from elsewhere_for_test import PythonPredictor").__module__ == "elsewhere_for_test"


def test_a_failing_constructor(load):
    """What __init__ raises is the reason why the API does not start."""
    found = load("class PythonPredictor:\n def __init__(self, config): raise ValueError('no')\n" + PREDICT)
    with pytest.raises(NotStarted) as caught:
        construct(found, Predictor(type="python", path="predictor.py"), None)
    assert str(caught.value) == "predictor.py: __init__: ValueError: no: runtime exception"
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_config_stays_as_it_is(load):
    """The predictor gets a deep copy of its config."""
    found = load("class PythonPredictor:\n def __init__(self, config): config['a']['b'] = 2\n" + PREDICT)
    spec = Predictor(type="python", path="predictor.py", config={"a": {"b": 1}})
    construct(found, spec, None)
    assert spec.config == {"a": {"b": 1}}
