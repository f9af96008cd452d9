"""Who may import whom: docs/architecture.md, held."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"errors", "notify", "processors", "protos", "tensors", "tfrecord"}
MAY_IMPORT = {
    "errors": set(),
    "notify": set(),
    "processors": set(),
    "protos": set(),
    "tensors": {"protos"},
    "tfrecord": set(),
    "line": set(),
    "bare_openvino": set(),
    "onnx_file": set(),
    "threads": set(),
    "executor": set(),
    "limits": set(),
    "listener": {"errors"},
    "topology": {"threads"},
    "metrics_files": set(),
    "http_protocol": set(),
    "quantity": {"errors"},
    "duration": {"errors"},
    "pid": set(),
    "plan": set(),
    "rotation": set(),
    "status": set(),
    "control": {"errors", "plan"},
    "process": {"errors", "listener", "plan"},
    "revision": {"errors", "plan", "process"},
    "supervisor": {
        "control",
        "errors",
        "limits",
        "listener",
        "notify",
        "pid",
        "plan",
        "process",
        "revision",
        "rotation",
        "status",
    },
    "spec": GROUND | {"quantity", "duration"},
    "model_client": GROUND | {"line", "onnx_file", "spec", "threads"},
    "api": GROUND | {"model_client", "executor", "http_protocol", "metrics_files", "spec"},
    "model_server": GROUND
    | {"bare_openvino", "executor", "http_protocol", "line", "metrics_files", "onnx_file", "threads"},
    "environments": GROUND
    | {"control", "listener", "metrics_files", "pid", "plan", "quantity", "spec", "status", "supervisor", "threads"}
    | {"topology"},
    "endpoint": {"errors", "environments"},
    "console": GROUND | {"endpoint", "environments", "spec"},
    "python_client": GROUND | {"console", "environments", "spec"},
    "cli": GROUND | {"console", "endpoint", "environments", "spec"},
    "__main__": {"cli"},
    "loadtest": GROUND,
}


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "cortex").rglob("*.py")):
        parts = path.relative_to(ROOT / "cortex").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def _imported(path: Path) -> Iterator[str]:
    """Yield the whole name of everything of `cortex` that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("cortex.") and name != "cortex.__version__")


def _imports(path: Path) -> Iterator[str]:
    """Yield the first part below `cortex` of everything that a module imports."""
    return (name.split(".")[1] for name in _imported(path))


@pytest.mark.parametrize("room", sorted({room for room, _ in _modules()}))
def test_imports_point_one_way(room: str) -> None:
    """A part of `cortex` imports what stands below it, and nothing else."""
    assert room in MAY_IMPORT, f"say in MAY_IMPORT what {room} may import"
    found = {name for other, path in _modules() if other == room for name in _imports(path)} - {room}
    assert found <= MAY_IMPORT[room], f"{room} must not import {found - MAY_IMPORT[room]}"


def test_the_rules_have_no_circle() -> None:
    """The allowed imports themselves can be put in one order."""
    left = {room: set(below) for room, below in MAY_IMPORT.items()}
    while left:
        free = [room for room, below in left.items() if not below & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even for their types."""
    modules = {_name(path): path for _, path in _modules()}
    below = {name: {_module(each, modules) for each in _imported(path)} - {name} for name, path in modules.items()}
    list(TopologicalSorter(below).static_order())


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _module(imported: str, modules: Mapping[str, Path]) -> str:
    return imported if imported in modules else imported.rpartition(".")[0]


def test_no_module_is_called_utils() -> None:
    """A module is named for what it holds."""
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not [path for _, path in _modules() if path.stem in vague]


@pytest.mark.parametrize("package", ["api", "model_client", "environments", "console", "spec"])
def test_tensorflow_is_never_imported_outside_its_engine(package: str) -> None:
    """Nobody pays for TensorFlow who does not run it; `cortex.protos` alone knows the way around it."""
    for room, path in _modules():
        if room == package:
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                heads = {name.split(".")[0] for name in names}
                assert not heads & {"tensorflow", "tensorflow_serving", "keras"}, path
