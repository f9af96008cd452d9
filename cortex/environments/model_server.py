"""Which model server serves the models of an API: this project's own, or TensorFlow Serving, which has fewer flags."""

from collections.abc import Callable, Sequence

from cortex.spec import APISpec

_OURS = ("-P", "-m", "cortex.model_server")
_TENSORFLOW_SERVING = "tensorflow/serving:2.19.1"


def command(spec: APISpec, python: str, image: str | None = None) -> tuple[str, ...]:
    """Return the command of the model server, without flags. ``python`` runs ours, which an ``image`` may not have."""
    if spec.compute.inf:
        return ("tensorflow_model_server_neuron",)
    foreign = image or spec.predictor.model_server == "tensorflow_model_server"
    return ("tensorflow_model_server",) if foreign else (python, *_OURS)


def is_ours(command: Sequence[str]) -> bool:
    """Tell whether a command, without flags, runs this project's own."""
    return tuple(command[1:]) == _OURS


def image(spec: APISpec, own: Callable[[str], str], *, on_gpu: bool) -> str:
    """Return the yaml's image, TensorFlow Serving's when the yaml asks for that, or ``own`` for the device."""
    device = "-neuron" if spec.compute.inf else "-gpu" if on_gpu else ""
    if spec.predictor.tensorflow_serving_image:
        return spec.predictor.tensorflow_serving_image
    if spec.predictor.model_server == "tensorflow_model_server" and not spec.compute.inf:
        return f"{_TENSORFLOW_SERVING}{device}"
    return own(f"model-server{device}")
