"""The line between a worker and its model server: Predict, without gRPC around it, over a Unix socket beside gRPC's.

gRPC is the contract, and the line an addition for the one client that sends all requests of a deployment; Python's gRPC
takes half a millisecond of processor time for a message that the line carries in a twentieth of that
(docs/decisions/0012). A connection carries one request at a time: a head, a ``PredictRequest``; a head, and a
``PredictResponse`` or the text of an error.
"""

import socket
import struct

_LARGEST = 2**31 - 1
"""Bytes of a message, as in protobuf itself."""
_REQUEST = struct.Struct("<Id")
"""What precedes a request: its size in bytes, and the seconds that its answer may take."""
_ANSWER = struct.Struct("<II")
"""What precedes an answer: its size in bytes, and gRPC's number of its status, of which 0 is OK."""


def address(grpc_socket: str) -> str:
    """Return the path of the line's socket beside that of gRPC's."""
    return f"{grpc_socket}.line"


def send_request(connection: socket.socket, message: bytes, seconds: float) -> None:
    """Send a request. Raises OSError, and then the other end has not seen all of it."""
    _send(connection, _REQUEST.pack(len(message), seconds), message)


def send_answer(connection: socket.socket, message: bytes, code: int) -> None:
    """Send an answer. Raises OSError."""
    _send(connection, _ANSWER.pack(len(message), code), message)


def receive_request(connection: socket.socket) -> tuple[float, bytes]:
    """Wait for a request; return its seconds and its message. Raises EOFError when there comes none, and OSError."""
    size, seconds = _REQUEST.unpack(_received(connection, _REQUEST.size))
    return seconds, _received(connection, size)


def receive_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Wait for an answer; return its code and its message. Raises EOFError when there comes none, and OSError."""
    size, code = _ANSWER.unpack(_received(connection, _ANSWER.size))
    return code, _received(connection, size)


def _send(connection: socket.socket, head: bytes, message: bytes) -> None:
    """Send both as one, without joining them first: whoever waits for them wakes up once."""
    sent = connection.sendmsg((head, message)) - len(head)
    if sent < 0:
        connection.sendall(head[sent:])
    if sent < len(message):
        connection.sendall(memoryview(message)[max(0, sent) :])


def _received(connection: socket.socket, size: int) -> bytes:
    if size > _LARGEST:
        raise EOFError(f"a message of {size} bytes is announced")
    message = connection.recv(size, socket.MSG_WAITALL)
    while len(message) < size:  # a signal came between, or the end
        more = connection.recv(size - len(message), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the other end is gone")
        message += more
    return message
