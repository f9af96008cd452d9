"""``python -m cortex.protos``: write what `shipped` reads, from the packages that are installed."""

from typing import Any

from google.protobuf import descriptor_pb2

from cortex import protos
from cortex.protos import shipped


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Return the files of the messages that `cortex.protos` offers, each after those that it imports."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for name in protos.__all__:
        if (file := getattr(getattr(protos, name), "DESCRIPTOR", None)) is not None:
            _add(file, files)
    return descriptor_pb2.FileDescriptorSet(file=files.values())


def _add(file: Any, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name in files or file.name.startswith("google/protobuf/"):
        return
    for imported in file.dependencies:
        _add(imported, files)
    files[file.name] = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(files[file.name])


if __name__ == "__main__":
    shipped.PATH.write_bytes(descriptors().SerializeToString(deterministic=True))
