"""The message modules of TensorFlow and TF Serving, made from a file of descriptors that this package carries.

While `modules` is entered they stand for ``tensorflow.core...._pb2``, for ``tensorflow_serving...._pb2`` and
``_pb2_grpc``, or for both, and hold what `cortex` uses of those: messages, enums, stubs, servicers, registrations.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

PATH = Path(__file__).with_name("tf_serving.binpb")


@contextmanager
def modules(packages: Collection[str]) -> Iterator[None]:
    """Serve imports of these packages' message modules; on leaving, nothing of them stays in ``sys.modules``."""
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [each for each in sys.modules if each.split(".")[0] in packages]:
            del sys.modules[name]


def _add_files(packages: Collection[str]) -> set[str]:
    """Add the packages' descriptors to protobuf's pool, and return the names of their files."""
    files = descriptor_pb2.FileDescriptorSet.FromString(PATH.read_bytes()).file
    own = {file.name: file for file in files if _package_of(file.name) in packages}
    for file in own.values():
        for name in file.dependency:
            if name not in own:  # another package's, which loads with its module
                importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return set(own)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find and make the modules of some proto files, and the bare packages above them."""

    def __init__(self, packages: Collection[str]) -> None:
        self._packages = packages
        self._files = _add_files(packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in self._packages:
            return None
        file, _ = _file_of(fullname)
        is_package = any(each.startswith(fullname.replace(".", "/") + "/") for each in self._files)
        if file not in self._files and not is_package:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: types.ModuleType) -> None:
        name, is_grpc = _file_of(module.__name__)
        if name not in self._files:
            return  # a bare package
        file = descriptor_pool.Default().FindFileByName(name)
        if is_grpc:
            for service in file.services_by_name.values():
                vars(module).update(_service(service))
        else:
            vars(module).update(_messages(file))


def _package_of(file: str) -> str:
    """Return which of the two packages brings a file: TensorFlow brings XLA's, too."""
    return "tensorflow_serving" if file.startswith("tensorflow_serving/") else "tensorflow"


def _file_of(module: str) -> tuple[str, bool]:
    """Return the proto file of a generated module, and whether the module is the one with the stubs."""
    stem = module.removesuffix("_grpc").removesuffix("_pb2")
    return stem.replace(".", "/") + ".proto", module.endswith("_pb2_grpc")


def _messages(file: Any) -> dict[str, Any]:
    """Return what a ``_pb2`` module has: its descriptor, message classes, enums, and the values of the enums."""
    found: dict[str, Any] = {"DESCRIPTOR": file}
    for name, message in file.message_types_by_name.items():
        found[name] = message_factory.GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        found[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        found |= {value.name: value.number for value in enum.values}
    return found


def _service(service: Any) -> dict[str, Any]:
    """Return what a ``_pb2_grpc`` module has of a service whose methods are all unary."""
    name = service.name
    return {
        f"{name}Stub": type(f"{name}Stub", (), {"__init__": _stub(service)}),
        f"{name}Servicer": type(f"{name}Servicer", (), {each.name: _unimplemented for each in service.methods}),
        f"add_{name}Servicer_to_server": _registration(service),
    }


def _stub(service: Any) -> Callable[[Any, Any], None]:
    def connect(self: Any, channel: Any) -> None:
        for method in service.methods:
            call = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)

    return connect


def _registration(service: Any) -> Callable[[Any, Any], None]:
    def add(servicer: Any, server: Any) -> None:
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                getattr(servicer, method.name),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            for method in service.methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    return add


def _unimplemented(self: Any, request: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
