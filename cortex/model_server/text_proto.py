"""Read text protos of TF Serving whose message classes the ``tensorflow-serving-api`` package does not hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from cortex.model_server.status import invalid

_Field = descriptor_pb2.FieldDescriptorProto

KINDS = {
    "string": {"type": _Field.TYPE_STRING, "label": _Field.LABEL_OPTIONAL},
    "bool": {"type": _Field.TYPE_BOOL, "label": _Field.LABEL_OPTIONAL},
    "repeated int64": {"type": _Field.TYPE_INT64, "label": _Field.LABEL_REPEATED},
}


Fields = Mapping[str, "str | Fields"]


def read(path: Path, name: str, fields: Fields) -> Any:
    """Read a file as a message of these fields, by name: a kind of `KINDS`, the name of a wrapper, or fields again.

    Raises StatusError (INVALID_ARGUMENT) that names the file; protobuf's reason is part of the text.
    """
    message = _class(name, fields)()
    try:
        text_format.Parse(path.read_text(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise invalid(f"Invalid protobuf file: '{path}': {error}") from error
    return message


def _class(name: str, fields: Fields) -> Any:
    """Declare the message in a pool of its own. A text proto has no field numbers, so any will do."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="cortex", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    _declare(file.message_type.add(name=name), fields, f".cortex.{name}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"cortex.{name}"))


def _declare(message: Any, fields: Fields, path: str) -> None:
    for number, (field, kind) in enumerate(fields.items(), start=1):
        if isinstance(kind, str):
            message.field.add(name=field, number=number, **KINDS.get(kind) or _message(f".google.protobuf.{kind}"))
        else:
            _declare(message.nested_type.add(name=f"{field}_type"), kind, f"{path}.{field}_type")
            message.field.add(name=field, number=number, **_message(f"{path}.{field}_type"))


def _message(name: str) -> dict[str, Any]:
    return {"type": _Field.TYPE_MESSAGE, "label": _Field.LABEL_OPTIONAL, "type_name": name}
