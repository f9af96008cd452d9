"""The client's end of the line to a model server on this machine, see `cortex.line`."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc

from cortex import line
from cortex.protos import predict_pb2

_SCHEME = "unix:"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class PredictionError(grpc.RpcError):  # type: ignore[misc]  # grpcio is untyped
    """Say why a model server did not predict, with a code and details as gRPC's own errors have them."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return gRPC's status code."""
        return self._code

    def details(self) -> str:
        """Return the text of the status."""
        return self._details


class Line:
    """Connections to one model server, as many as threads have asked at the same time; closed by `close`."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self._idle: list[socket.socket] = []  # append and pop are atomic

    @classmethod
    def beside(cls, address: str, seconds: float) -> "Line | None":
        """Return the line beside gRPC's ``unix:/path``, or None: TF Serving has none. Answers may take ``seconds``."""
        path = line.address(address.removeprefix(_SCHEME))
        return cls(path, seconds) if address.startswith(_SCHEME) and Path(path).is_socket() else None

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse | None:
        """Return the answer, or None when nobody listens and so nothing was asked. Raises PredictionError."""
        message = request.SerializeToString()
        for connection in self._connections():
            try:
                line.send_request(connection, message, self._seconds)
                answer = line.receive_answer(connection)
            except ConnectionError:
                connection.close()  # its server has ended or has no room, and has not read all of this request
            except (OSError, EOFError) as error:
                raise _lost(connection, error) from error
            else:
                return self._answered(connection, *answer)
        return None

    def close(self) -> None:
        """Close what is idle; what is under way ends by itself."""
        for connection in self._popped():
            connection.close()

    def _answered(self, connection: socket.socket, code: int, message: bytes) -> predict_pb2.PredictResponse:
        self._idle.append(connection)
        if code:
            raise PredictionError(_CODES.get(code, grpc.StatusCode.UNKNOWN), message.decode(errors="replace"))
        return predict_pb2.PredictResponse.FromString(message)

    def _connections(self) -> Iterator[socket.socket]:
        """Yield the idle connections, the last used first, and then a new one if there is a listener."""
        yield from self._popped()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(None)  # a predictor may have set a default for its downloads
        # not by settimeout: connects would not wait their turn when many come at once, and each send would poll first
        for each in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, each, self._timeout)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
        else:
            yield connection

    def _popped(self) -> Iterator[socket.socket]:
        with suppress(IndexError):
            while True:
                yield self._idle.pop()


def _lost(connection: socket.socket, error: Exception) -> PredictionError:
    connection.close()
    if isinstance(error, BlockingIOError):  # so a timeout of the socket itself is told
        return PredictionError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    return PredictionError(grpc.StatusCode.UNAVAILABLE, f"the model server has ended the connection: {error}")
