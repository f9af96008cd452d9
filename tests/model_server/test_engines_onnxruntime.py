"""Where ONNX Runtime computes, as far as a machine without a GPU can tell: choices, recipes, buffers, and fallbacks."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from cortex.model_server import servable
from cortex.model_server.engines import onnxruntime_gpu, onnxruntime_providers, onnxruntime_recipe
from cortex.model_server.engines.base import EngineOptions, Unsupported
from cortex.model_server.engines.onnxruntime import ONNXRuntime
from cortex.model_server.engines.onnxruntime_binding import AT_ONCE, Binding, pinned_memory
from cortex.model_server.engines.onnxruntime_gpu import GPU, NoGPU
from cortex.model_server.engines.onnxruntime_recipe import Profile, Recipe
from cortex.model_server.engines.pool import Pool
from cortex.model_server.model_file import ONNX, ModelFile
from cortex.model_server.servable import LoadOptions

T4 = "Tesla T4, 7.5, 550.54.15, 15360"
PROFILE = {"pictures": [[1, 12, 12, 3], [8, 12, 12, 3], [64, 12, 12, 3]]}
RECIPE = {"providers": ["tensorrt", "cuda"], "precision": "fp16", "profiles": PROFILE}
SmiAnswer = Callable[..., None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmiAnswer:
    """Put a stand-in for nvidia-smi on the PATH: it checks what it is asked, and answers with this text and code."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def answer(text: str = T4, code: int = 0, device: str = "0") -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        asked = f"-i {device} --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader,nounits"
        program.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] || exit 9\necho "{text}"\nexit {code}\n')
        program.chmod(0o755)

    return answer


@pytest.fixture
def model(engine_models: Path, tmp_path: Path) -> ModelFile:
    """A classifier in a directory of its own."""
    directory = tmp_path / "model" / "1"
    shutil.copytree(engine_models / "onnx" / "1", directory)
    (path,) = directory.glob("*.onnx")
    return ModelFile(directory, ONNX, path)


@pytest.fixture
def with_recipe(model: ModelFile) -> ModelFile:
    (model.directory / "assets.extra").mkdir()
    (model.directory / onnxruntime_recipe.FILE).write_text(json.dumps(RECIPE))
    return model


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ONNX Runtime that lists the GPU's providers, and a TensorRT 10.13.3."""
    names = [*onnxruntime_providers.NAMES.values(), onnxruntime_providers.ON_CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime_gpu, "tensorrt_version", lambda: 101303)
    monkeypatch.setattr(onnxruntime_gpu, "load_libraries", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_gpu_is_described(smi: SmiAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi is asked for the device that CUDA calls 0, which CUDA_VISIBLE_DEVICES chooses."""
    smi()
    assert onnxruntime_gpu.find() == GPU("Tesla T4", "7.5", "550.54.15", 15360 * 2**20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    smi(device="3")
    assert onnxruntime_gpu.find().name == "Tesla T4"


@pytest.mark.parametrize(
    ("answer", "visible", "reason"),
    [
        (None, None, "there is no nvidia-smi, which comes with NVIDIA's driver"),
        ((T4, 0), "", "CUDA_VISIBLE_DEVICES= hides every GPU"),
        ((T4, 0), "-1", "CUDA_VISIBLE_DEVICES=-1 hides every GPU"),
        (("No devices were found", 6), None, "nvidia-smi ended with 6: No devices were found"),
        (("what, ever", 0), None, "nvidia-smi answers 'what, ever'"),
        (("", 0), None, "nvidia-smi answers ''"),
    ],
)
def test_why_there_is_no_gpu(
    smi: SmiAnswer, monkeypatch: pytest.MonkeyPatch, answer: Any, visible: str | None, reason: str
) -> None:
    """Every way of not having a GPU is one sentence."""
    if answer is not None:
        smi(*answer)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(NoGPU) as caught:
        onnxruntime_gpu.find()
    assert str(caught.value) == reason


@pytest.mark.usefixtures("gpu_wheel")
def test_an_artifact_for_gpus_is_given_tensorrt_and_cuda(smi: SmiAnswer, with_recipe: ModelFile) -> None:
    """TensorRT is told its precision, the shapes of its engines and where they are; CUDA and the CPU come behind."""
    smi()
    recipe = onnxruntime_recipe.read(with_recipe.directory)
    choice = onnxruntime_providers.choose(with_recipe, recipe, EngineOptions(gpu_memory_fraction=0.5))
    (first, tensorrt), (second, cuda), last = choice.providers
    assert (first, second, last) == ("TensorrtExecutionProvider", "CUDAExecutionProvider", ("CPUExecutionProvider", {}))
    cache = tensorrt.pop("trt_engine_cache_path")
    assert tensorrt == {
        "trt_fp16_enable": "1",
        "trt_int8_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        "trt_profile_min_shapes": "pictures:1x12x12x3",
        "trt_profile_opt_shapes": "pictures:8x12x12x3",
        "trt_profile_max_shapes": "pictures:64x12x12x3",
    }
    assert cuda == {"use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": str(7680 * 2**20)}
    assert (choice.missing, choice.gpu) == ("", onnxruntime_gpu.find())


@pytest.mark.usefixtures("gpu_wheel")
def test_engines_belong_to_one_model_and_one_machine(
    smi: SmiAnswer, with_recipe: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Shipped engines are used on the machine they fit; else the user's cache, and the log says that it takes time."""
    smi()
    gpu = onnxruntime_gpu.find()
    name = onnxruntime_providers.engines_name(with_recipe, gpu)
    assert name.startswith(f"sm75-tensorrt101303-onnxruntime{ort.__version__}-")
    assert onnxruntime_providers.engines(with_recipe, gpu) == tmp_path / "cache/cortex/tensorrt" / name
    assert "has no TensorRT engines for Tesla T4: building them takes minutes" in caplog.text

    shipped = with_recipe.directory / onnxruntime_providers.BUILT / name
    shipped.mkdir(parents=True)
    assert onnxruntime_providers.engines(with_recipe, gpu) == shipped
    other = GPU("NVIDIA L4", "8.9", gpu.driver, gpu.memory)
    assert onnxruntime_providers.engines(with_recipe, other).parent == tmp_path / "cache/cortex/tensorrt"
    for path in (with_recipe.path, with_recipe.directory / onnxruntime_recipe.FILE):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert onnxruntime_providers.engines_name(with_recipe, gpu) != name
        path.write_bytes(before)


@pytest.mark.usefixtures("gpu_wheel")
def test_a_model_without_a_recipe_stays_on_the_cpu(smi: SmiAnswer, model: ModelFile) -> None:
    """TensorRT would build an engine for every new shape while a request waits."""
    smi()
    assert onnxruntime_providers.choose(model, None, EngineOptions()).providers == (("CPUExecutionProvider", {}),)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_fallback_is_said_aloud(
    smi: SmiAnswer, with_recipe: ModelFile, caplog: pytest.LogCaptureFixture, has_gpu: bool
) -> None:
    """Without a GPU, or a provider for it, the CPU answers; the log warns, and the description says why."""
    if has_gpu:
        smi()
        reason = (
            "this onnxruntime has no TensorrtExecutionProvider or CUDAExecutionProvider: "
            "pip install onnxruntime-gpu in its place"
        )
    else:
        reason = "there is no nvidia-smi, which comes with NVIDIA's driver"
    loaded = servable.load("m", 1, with_recipe.directory, LoadOptions(engine="onnxruntime"))
    assert loaded.description.precision == "fp32"
    assert str(loaded.description).endswith(f"device=cpu (fell back: {reason})")
    assert f"{with_recipe.directory} was made for a GPU, and runs on cpu: {reason}" in caplog.text
    loaded.close()


@pytest.mark.usefixtures("gpu_wheel")
@pytest.mark.filterwarnings("ignore:Specified provider .* is not in available provider names:UserWarning")
def test_a_provider_that_does_not_load_is_said_aloud(
    smi: SmiAnswer, with_recipe: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that is listed and yet not in the session, as without cuDNN, is no silent fallback."""
    smi()
    try:
        engine = ONNXRuntime.open(with_recipe, EngineOptions())
    except Unsupported as reason:
        pytest.skip(f"this ONNX Runtime refuses providers that it does not have: {reason}")
    assert "device=cpu (fell back: ONNX Runtime could not load TensorrtExecutionProvider" in str(engine.describe())
    assert "runs on cpu: ONNX Runtime could not load TensorrtExecutionProvider" in caplog.text


def test_a_recipe_for_the_cpu_is_no_fallback(model: ModelFile, caplog: pytest.LogCaptureFixture) -> None:
    """An artifact that asks for no provider runs on the CPU, and nobody is warned."""
    (model.directory / "assets.extra").mkdir()
    (model.directory / onnxruntime_recipe.FILE).write_text(json.dumps(RECIPE | {"providers": [], "precision": "int8"}))
    engine = ONNXRuntime.open(model, EngineOptions(threads=1))
    assert str(engine.describe()).endswith("device=cpu")
    assert (engine.describe().precision, engine.describe().threads) == ("int8", 1)
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "must be an object of providers, precision and profiles"),
        (json.dumps(RECIPE | {"more": 1}), "must be an object of providers, precision and profiles"),
        (json.dumps(RECIPE | {"providers": ["rocm"]}), "providers must be a list of tensorrt and cuda, not ['rocm']"),
        (json.dumps(RECIPE | {"providers": "cuda"}), "providers must be a list of tensorrt and cuda"),
        (json.dumps(RECIPE | {"precision": "fp8"}), "precision must be one of fp16, fp32, int8, not 'fp8'"),
        (json.dumps(RECIPE | {"precision": []}), "precision must be one of"),
        (json.dumps(RECIPE | {"profiles": []}), "profiles must be an object"),
        (json.dumps(RECIPE | {"profiles": {"x": [[1], [2]]}}), "profiles.x must be three shapes"),
        (json.dumps(RECIPE | {"profiles": {"x": [[1], [2], [3, 4]]}}), "profiles.x: the shapes differ in rank"),
        (json.dumps(RECIPE | {"profiles": {"x": [[1], [3], [2]]}}), "profiles.x: 1, 3, 2 are not in order"),
        (json.dumps(RECIPE | {"profiles": {"x": [[0], [1], [2]]}}), "[0] is not a list of positive sizes"),
        (json.dumps(RECIPE | {"profiles": {"x": [[True], [1], [2]]}}), "[True] is not a list of positive sizes"),
        (" " * 70_000, "larger than 65536 bytes"),
        ("[" * 60_000, ""),
    ],
)
def test_a_broken_recipe_is_one_sentence(model: ModelFile, text: str, message: str) -> None:
    """A recipe is from outside: what is wrong with it is said, with the file, and the model does not load."""
    (model.directory / "assets.extra").mkdir()
    (model.directory / onnxruntime_recipe.FILE).write_text(text)
    with pytest.raises(Unsupported) as caught:
        ONNXRuntime.open(model, EngineOptions())
    assert str(caught.value).startswith(f"cannot use {model.directory / onnxruntime_recipe.FILE}: ")
    assert message in str(caught.value)


def test_a_recipe_reads_as_it_was_written(model: ModelFile) -> None:
    """What an exporter writes is what an engine reads."""
    recipe = Recipe(("cuda",), "fp32", {"x": Profile((1, 2), (3, 2), (5, 2))})
    (model.directory / "assets.extra").mkdir()
    (model.directory / onnxruntime_recipe.FILE).write_text(json.dumps(recipe.document()))
    assert onnxruntime_recipe.read(model.directory) == recipe


def test_bound_buffers_give_the_same_answers(model: ModelFile, engine_models: Path) -> None:
    """Bindings answer as the session does, for changing batches, from more threads than there are buffers."""
    with np.load(engine_models / "asked.npz") as file:
        pictures, want = file["pictures"], file["answers"]
    session = ort.InferenceSession(str(model.path), providers=[onnxruntime_providers.ON_CPU])
    (alias,), (output,) = ([port.name for port in ports] for ports in (session.get_inputs(), session.get_outputs()))
    pool = Pool(lambda: Binding(session, pinned_memory(onnxruntime_providers.ON_CPU)), AT_ONCE)
    wrong: list[float] = []

    def client(start: int) -> None:
        for size in (1, 5, 5, 3, 8):
            with pool.item(None) as binding:
                (got,) = binding.run({alias: pictures[start : start + size]}, [output])
            wrong.append(float(np.abs(got - want[start : start + size]).max()))

    threads = [threading.Thread(target=client, args=(start,)) for start in range(0, 3 * AT_ONCE * 8, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 15 * AT_ONCE
    assert max(wrong) < 1e-5
