"""``python -m export cpu``: what it prints, what it refuses, and what it leaves behind."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.errors import UserError
from cortex.protos import saved_model_pb2, types_pb2
from export import cpu, ir, quantization

ROOT = Path(__file__).parents[3]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _order(source: Path, **changed: Any) -> cpu.Order:
    chosen = {
        "precision": "bf16",
        "calibration": None,
        "subset_size": 300,
        "output": None,
        "version": None,
        "force": False,
    }
    return cpu.Order(source, **(chosen | changed))


def _refusal(order: cpu.Order) -> str:
    with pytest.raises(UserError) as refused:
        cpu.export(order, lambda step: None)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_help_names_every_option_and_value(export_run: Run) -> None:
    """The help alone is enough to use the command."""
    shown = export_run("cpu", "--help")
    assert shown.returncode == 0
    for word in ("fp32|bf16|int8", "DIR|FILE|random", "--subset-size", "300", "--output", "models/resnet50", "--force"):
        assert word in shown.stdout
    assert "python -m export cpu --precision int8 --calibration" in shown.stdout


def test_help_loads_no_framework() -> None:
    """The list of commands is there at once: no framework is imported to print it."""
    code = (
        "import sys; from export.cli import commands; commands(['--help'], standalone_mode=False);"
        "print([name for name in ('tensorflow', 'keras', 'openvino', 'nncf', 'onnx', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^  savedmodel .*^  cpu ", done.stdout, re.MULTILINE | re.DOTALL)
    assert done.stdout.splitlines()[-1] == "[]"


def test_result_on_stdout_progress_on_stderr(made: dict[str, Any]) -> None:
    """Standard output holds the directory and the next step; the steps, with seconds, are on standard error."""
    base, done = made["int8"]
    written, following = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(base / '1'))}  \d+ MB", written)
    assert following == f"next: set model_path to {base} in cortex_cpu.yaml, then cortex deploy cortex_cpu.yaml"
    assert all(re.match(r" *\d+\.\d s  \S", line) for line in done.stderr.splitlines())
    assert "showing the model 100 samples" in done.stderr
    assert re.search(r"agreement with fp32: the first class is the same for \d+ of 100 ", done.stderr)


def test_int8_is_never_calibrated_on_noise_by_itself(export_run: Run, trained: Path, tmp_path: Path) -> None:
    """Without --calibration int8 is refused; with ``random``, the export and its card say what that is worth."""
    refused = export_run("cpu", trained / "classifier", "--precision", "int8", "--output", tmp_path / "out")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: --precision int8 needs --calibration DIR or FILE")
    assert not (tmp_path / "out").exists()

    arguments = ("--precision", "int8", "--calibration", "random", "--subset-size", "8", "--output", tmp_path / "out")
    done = export_run("cpu", trained / "classifier", *arguments)
    assert done.returncode == 0, done.stderr
    assert "noise stands for samples, as asked for" in done.stderr
    card = (tmp_path / "out" / "1" / "assets.extra" / "model_card.json").read_text()
    assert "noise: what was chosen and measured by it means nothing" in card


def test_a_subset_of_nothing_is_refused(export_run: Run) -> None:
    """Without samples there is none to choose from."""
    done = export_run("cpu", "--subset-size", "300")
    assert (done.returncode, done.stderr) == (1, "error: --subset-size has no effect without --calibration\n")


@pytest.mark.parametrize("name", ["mine", "m\udcff"])
def test_a_model_that_is_no_version(export_run: Run, trained: Path, tmp_path: Path, name: str) -> None:
    """A SavedModel in a directory of its own, whose name may be no text, has its artifact beside it, as version 1."""
    shutil.copytree(trained / "classifier" / "1", tmp_path / "models" / name)
    done = export_run("cpu", tmp_path / "models" / name, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / f"{name}_cpu" / "1").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": "gone"}, "gone: there is no such directory; python -m export savedmodel makes models/resnet50"),
        ({"source": "pictures"}, "pictures: holds neither a SavedModel nor numbered versions of one"),
        ({"version": 7}, "classifier: has no version 7 (it has: 1)"),
        ({"source": "classifier/1", "version": 7}, "classifier/1: is version 1, not 7"),
        ({"output": "classifier"}, "classifier: holds the SavedModel itself; name another directory"),
        ({"output": "classifier/2"}, "classifier/2: lies in the SavedModel; name another directory"),
        ({"output": "classifier/1/int8"}, "classifier/1/int8: lies in the SavedModel; name another directory"),
        ({"calibration": "gone"}, "gone: there is no such file or directory"),
        ({"calibration": "~nobody-here"}, "~nobody-here: there is no such file or directory"),
        ({"calibration": "classifier"}, "classifier: holds no pictures (.bmp, .gif, .jpeg, .jpg, .png, .webp) and no"),
        ({"calibration": "test.npz"}, "test.npz (it must be a TFRecord file without compression)"),
    ],
)
def test_refusals_are_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    """What is wrong with an argument is said in one line that names it, and nothing is written."""
    monkeypatch.chdir(trained)
    for key in ("source", "output"):
        changed |= {key: Path(changed[key])} if key in changed else {}
    order = _order(**({"source": Path("classifier"), "output": tmp_path / "out"} | changed))
    assert message in _refusal(order)
    assert not (tmp_path / "out").exists()


def _without_default(signatures: Any) -> None:
    signatures["mine"].CopyFrom(signatures["serving_default"])
    del signatures["serving_default"]


def _same_names(signatures: Any) -> None:
    outputs = signatures["serving_default"].outputs
    outputs["input"].CopyFrom(outputs["output"])


def _in_64_bits(signatures: Any) -> None:
    signatures["serving_default"].outputs["output"].dtype = types_pb2.DT_INT64


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without_default, "classifier/1: has no signature serving_default (it has: mine, other)"),
        (_same_names, "classifier/1: 'input' is both an input and an output, which an IR cannot hold; deploy the"),
        (
            _in_64_bits,
            "no exact int64, which output 'output' of signature 'serving_default' is; deploy the SavedModel as it is",
        ),
    ],
)
def test_signatures_that_an_ir_cannot_have(trained: Path, tmp_path: Path, edit: Any, message: str) -> None:
    """What would not be served as it was is refused in one line, not exported otherwise."""
    shutil.copytree(trained / "classifier", tmp_path / "classifier")
    path = tmp_path / "classifier" / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    edit(saved.meta_graphs[0].signature_def)
    path.write_bytes(saved.SerializeToString())
    assert message in _refusal(_order(tmp_path / "classifier"))


def test_other_signatures_are_left_out_and_told(made: dict[str, Any]) -> None:
    """An IR holds one signature; which ones are missing from it is said."""
    assert "leaving out signature other: an IR holds one" in made["bf16"][1].stderr


def test_broken_card_is_refused(trained: Path, tmp_path: Path) -> None:
    """A card that is no JSON object is not carried over in part."""
    shutil.copytree(trained / "classifier", tmp_path / "classifier")
    card = tmp_path / "classifier" / "1" / "assets.extra" / "model_card.json"
    card.parent.mkdir()
    for content, message in (("{", "cannot be read"), ("[]", "must hold a JSON object")):
        card.write_text(content)
        assert f"{card}: {message}" in _refusal(_order(tmp_path / "classifier"))


def test_existing_version_needs_force(artifacts: dict[str, Path], trained: Path) -> None:
    """Without --force an artifact that is there stays; the refusal comes before any work."""
    order = _order(trained / "classifier", output=artifacts["bf16"], calibration="gone")
    assert _refusal(order) == f"{artifacts['bf16']}/1 exists already: pass --force to replace it, or another --output"


def test_force_replaces(trained: Path, tmp_path: Path) -> None:
    """With --force it is replaced, by default beside the source, under its name and the source's version."""
    shutil.copytree(trained / "classifier" / "1", tmp_path / "mine" / "3")
    for precision in ("fp32", "bf16"):
        made = cpu.export(_order(tmp_path / "mine", precision=precision, force=True), lambda step: None)
        assert made == tmp_path / "mine_cpu" / "3"
    assert (made / "model.bin").stat().st_size < 60_000


def test_a_version_has_its_number_whatever_its_path(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the path does not end in its name."""
    shutil.copytree(trained / "classifier" / "1", tmp_path / "mine" / "3")
    monkeypatch.chdir(tmp_path / "mine" / "3" / "variables")
    assert cpu.export(_order(Path("..")), lambda step: None) == tmp_path / "mine_cpu" / "3"


def test_missing_nncf_is_one_line(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NNCF int8 is refused at once, with the line that installs it."""
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    order = _order(trained / "classifier", precision="int8", calibration="random")
    assert _refusal(order) == "--precision int8 needs NNCF: pip install nncf"


def test_a_model_with_nothing_to_quantize_is_refused() -> None:
    """What would be as it was is not called int8."""
    import openvino
    from openvino import opset8

    given = opset8.parameter([1, 2], np.float32)
    model = openvino.Model([opset8.add(given, opset8.constant([[1.0, 2.0]], np.float32))], [given])
    samples = [{given.get_friendly_name(): np.zeros((1, 2), np.float32)}] * 8
    with pytest.raises(UserError, match="nothing in this model can be computed in int8: pass --precision fp32 or"):
        quantization.quantize(model, samples, lambda step: None)


def test_what_does_not_fit_says_how_much_room_there_is(tmp_path: Path) -> None:
    """OpenVINO does not tell a full disk from another failure."""
    import openvino
    from openvino import opset8

    given = opset8.parameter([1, 1000], np.float32)
    model = openvino.Model([opset8.add(given, opset8.constant(np.ones((1, 1000)), np.float32))], [given])
    (tmp_path / "model.bin").symlink_to("/dev/full")
    with pytest.raises(UserError, match=rf"^cannot write into {tmp_path.parent}: .*error \(\d+ MB are free there\)$"):
        ir.save(model, tmp_path)


def test_source_that_answers_otherwise_is_refused(artifact: Path, tmp_path: Path) -> None:
    """A SavedModel that does not give the answers recorded in it is no source to compare with."""
    copy = tmp_path / "resnet50" / "1"
    shutil.copytree(artifact, copy, copy_function=os.link)
    data = copy / "variables" / "variables.data-00000-of-00001"
    values = bytearray(data.read_bytes())
    values[40_000_000:60_000_000] = bytes(20_000_000)
    data.unlink()
    data.write_bytes(values)
    message = _refusal(_order(tmp_path / "resnet50"))
    assert message.startswith(f"{copy}: does not answer as recorded in it: warmup record 1")
    assert not (tmp_path / "resnet50_cpu").exists()
