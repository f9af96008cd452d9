"""What several tests of this folder make: SavedModels by hand, specs, and an ordinary user."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cortex.protos import saved_model_pb2
from cortex.spec import APISpec, Compute, Model, Predictor

MakeSavedModel = Callable[..., Path]
MakeSpec = Callable[..., APISpec]


@pytest.fixture(scope="session")
def write_saved_model() -> MakeSavedModel:
    """Write the files of a SavedModel; ``payload`` makes its content its own."""

    def write(
        directory: Path, *, variables: bool = True, tags: tuple[str, ...] = ("serve",), payload: bytes = b"1"
    ) -> Path:
        message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        graph = message.meta_graphs.add()
        graph.meta_info_def.tags.extend(tags)
        graph.graph_def.node.add(name="x", op="VarHandleOp" if variables else "Placeholder")
        graph.signature_def["serving_default"].inputs["x"].name = "x:0"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "saved_model.pb").write_bytes(message.SerializeToString(deterministic=True))
        if variables:
            (directory / "variables").mkdir(exist_ok=True)
            (directory / "variables/variables.index").write_bytes(b"index")
            (directory / "variables/variables.data-00000-of-00001").write_bytes(payload)
        return directory

    return write


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """Make the spec of an API from the paths of its models."""

    def make(
        *paths: str,
        kind: str = "tensorflow",
        predictor: str = "predictor.py",
        inf: int = 0,
        models_dir: str | None = None,
    ) -> APISpec:
        named = len(paths) > 1
        models = tuple(Model(name=f"m{i}", path=path) if named else Model(path=path) for i, path in enumerate(paths))
        row = Predictor.model_validate(
            {"type": kind, "path": predictor, "models": models, "models_dir": models_dir}, strict=True
        )
        return APISpec(name="api", predictor=row, compute=Compute(inf=inf))

    return make


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Become a user whom permissions hold back (root is above them), and lend a directory that this user can write."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)
