import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cortex.model_server.flags import BadFlag, Flags, parse, print_usage

DEFAULTS = {
    "port": 8500,
    "rest_api_port": 0,
    "rest_api_timeout_in_ms": 30000,
    "model_name": "default",
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60_000_000,
    "file_system_poll_wait_seconds": 1,
    "saved_model_tags": "serve",
    "enable_model_warmup": True,
    "enable_batching": False,
    "engine": "auto",
    "precision": "auto",
    "inference_threads": 0,
}


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_defaults_are_tf_servings(name: str, value: Any) -> None:
    """A flag that is not given has TF Serving's default."""
    assert getattr(parse([]).flags, name) == value


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--port=9000"], "port", 9000),
        (["--port", "9000"], "port", 9000),
        (["--enable_batching"], "enable_batching", True),
        (["--enable_batching=true"], "enable_batching", True),
        (["--enable_model_warmup=false"], "enable_model_warmup", False),
        (["--enable_model_warmup=0"], "enable_model_warmup", False),
        (["--model_name="], "model_name", ""),
        (["--model_base_path=/a=b"], "model_base_path", "/a=b"),
        (["--per_process_gpu_memory_fraction=0.5"], "per_process_gpu_memory_fraction", 0.5),
        (["--engine=openvino"], "engine", "openvino"),
        (["--port=1", "--port=2"], "port", 2),
    ],
)
def test_spellings(arguments: list[str], name: str, value: Any) -> None:
    """Values come after ``=`` or as the next argument; a boolean needs none; the last one wins."""
    line = parse(arguments)
    assert getattr(line.flags, name) == value
    assert line.unknown == ()


@pytest.mark.parametrize(
    "argument",
    [
        "--port=many",
        "--port=",
        "--port=99999999999999999999",
        "--port=65536",
        "--rest_api_timeout_in_ms=9223372036854775807",
        "--file_system_poll_wait_seconds=9223372036854775807",
        "--rest_api_port=-1",
        "--enable_batching=maybe",
        "--per_process_gpu_memory_fraction=half",
        "--engine=abacus",
        "--precision=fp4",
        "--mixed_precision=float8",
        "--model_name",
    ],
)
def test_a_value_that_cannot_be_read_names_its_flag(argument: str) -> None:
    """An unreadable value is an error that names the flag."""
    with pytest.raises(BadFlag, match=argument.partition("=")[0]):
        parse([argument])


def test_unknown_arguments_are_kept_apart() -> None:
    """What is no flag of ours is reported, and does not disturb the flags around it."""
    line = parse(["--nonsense=1", "stray", "--port=7", "-x"])
    assert line.unknown == ("--nonsense=1", "stray", "-x")
    assert line.flags.port == 7


def test_flags_without_effect_are_named_when_they_are_given() -> None:
    """A flag that changes nothing here is worth a word only when it was given another value than its default."""
    assert parse(["--enable_profiler", "--num_unload_threads=9", "--port=1"]).not_in_effect == ["num_unload_threads"]


def test_flags_of_one_engine_are_named_where_another_may_run() -> None:
    """A flag that only one engine heeds is told, with the engine, unless that is the one asked for."""
    given = ["--tensorflow_intra_op_parallelism=1", "--num_tflite_pools=2", "--port=1"]
    tensorflow, tflite = ("tensorflow_intra_op_parallelism", "tensorflow"), ("num_tflite_pools", "tflite")
    assert parse(given).of_other_engines == [tflite, tensorflow]
    assert parse([*given, "--engine=tensorflow"]).of_other_engines == [tflite]


def test_usage_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage lists each flag once, with its default as it is written, its type, and whether it has an effect."""
    print_usage()
    out = capsys.readouterr().out
    for line in (
        "--enable_batching=false\tbool\tJoin requests to batches.",
        "--num_unload_threads=0\tint\tVersions unloaded at once. (no effect here)",
        "--tensorflow_intra_op_parallelism=0\tint\tThreads of one operation; 0 for all. (engine tensorflow only)",
    ):
        assert f"\t{line}\n" in out
    assert [line.split("=")[0].strip() for line in out.splitlines()[2:]] == [f"--{name}" for name in vars(Flags())]


OURS = [field for field in dataclasses.fields(Flags) if "(ours)" in field.metadata["help"]]


def test_the_documentation_names_every_flag_of_ours() -> None:
    """What the usage marks as ours stands in the table of docs/model_server.md."""
    page = (Path(__file__).parents[2] / "docs" / "model_server.md").read_text()
    assert [field.name for field in OURS if f"| `--{field.name}` |" not in page] == []


@pytest.mark.parametrize("name", [field.name for field in OURS if field.type is int])
def test_no_number_of_ours_is_negative(name: str) -> None:
    """TF Serving takes what is below 0 for 0 here and for no limit there; a flag of ours refuses it."""
    with pytest.raises(BadFlag, match=f"--{name} is out of range: -1"):
        parse([f"--{name}=-1"])
