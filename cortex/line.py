"""The line between a worker and its model server: Predict, without gRPC around it, over a Unix socket beside gRPC's.

gRPC is the contract, and the line an addition for the one client that sends all requests of a deployment; Python's gRPC
takes half a millisecond of processor time for a message that the line carries in a twentieth of that
(docs/decisions/0012). A connection carries one request at a time: a head, a ``PredictRequest``; a head, and a
``PredictResponse`` or the text of an error.
"""

import socket
import struct
from typing import NamedTuple

LARGEST = 2**31 - 1
"""Bytes of a message, as in protobuf itself."""
_REQUEST = struct.Struct("<Id")
_ANSWER = struct.Struct("<II")


class RequestHead(NamedTuple):
    """What precedes a request: its size in bytes, and the seconds that its answer may take."""

    size: int
    seconds: float


class AnswerHead(NamedTuple):
    """What precedes an answer: its size in bytes, and gRPC's number of its status, of which 0 is OK."""

    size: int
    code: int


def address(grpc_socket: str) -> str:
    """Return the path of the line's socket beside that of gRPC's."""
    return f"{grpc_socket}.line"


def send_request(connection: socket.socket, message: bytes, seconds: float) -> None:
    """Send a request. Raises OSError, and then the other end has not seen all of it."""
    connection.sendall(_REQUEST.pack(len(message), seconds) + message)


def send_answer(connection: socket.socket, message: bytes, code: int) -> None:
    """Send an answer. Raises OSError."""
    connection.sendall(_ANSWER.pack(len(message), code) + message)


def receive_request(connection: socket.socket) -> tuple[RequestHead, bytearray]:
    """Wait for a request. Raises EOFError when there comes none, and OSError."""
    head = RequestHead(*_REQUEST.unpack(_received(connection, _REQUEST.size)))
    return head, _received(connection, head.size)


def receive_answer(connection: socket.socket) -> tuple[AnswerHead, bytearray]:
    """Wait for an answer. Raises EOFError when there comes none, and OSError."""
    head = AnswerHead(*_ANSWER.unpack(_received(connection, _ANSWER.size)))
    return head, _received(connection, head.size)


def _received(connection: socket.socket, size: int) -> bytearray:
    if size > LARGEST:
        raise EOFError(f"a message of {size} bytes is announced")
    message = bytearray(size)
    left = memoryview(message)
    while left:
        count = connection.recv_into(left)
        if not count:
            raise EOFError("the other end is gone")
        left = left[count:]
    return message
