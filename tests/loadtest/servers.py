"""A server on loopback that behaves as its path says, and counts what reaches it."""

import contextlib
import io
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Seen:
    """What reached the server."""

    requests: list[tuple[str, Message, bytes]] = field(default_factory=list)
    pages: list[Message] = field(default_factory=list)
    """The headers of what was read with GET."""
    connections: int = 0
    answered: int = 0
    free: list[float] = field(default_factory=lambda: [0.0] * 4)
    freeze: tuple[float, float] = (1.5, 1.9)
    """Seconds after the first request for a freeze, between which nobody is answered."""
    first: float | None = None
    """When that came."""
    capacity: list[float] = field(default_factory=list)
    """When each answer of the server with a capacity was due."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released each time that the server has closed a connection."""


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    wbufsize = -1  # an answer goes out in one piece
    seen: Seen

    def setup(self) -> None:
        super().setup()
        self.seen.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.requests.append((self.path, self.headers, body))
        asked = self.path.partition("?")[0].strip("/")
        act = getattr(self, f"do_{asked}", None)
        if act:
            act()
        else:
            self.answer(int(asked or 200))

    def do_GET(self) -> None:
        self.seen.pages.append(self.headers)
        if self.path == "/drip/metrics":
            self.drip()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.metrics() if self.path == "/metrics" else picture_bytes())
        self.close_connection = True

    def drip(self) -> None:
        """Send a head that does not end, a byte now and then."""
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            for _ in range(60):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)

    def answer(self, status: int, labels: Sequence[str] = ("tench",)) -> None:
        body = json.dumps(labels).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def metrics(self) -> bytes:
        """Tell of 10 ms of execution and 1 ms of decoding for each request so far, and of what is no figure."""
        count = len(self.seen.requests)
        lines = ["# TYPE a_stage_seconds histogram"]
        for stage, each in (("execute", 0.01), ("decode", 0.001)):
            lines += [f'a_stage_seconds_count{{stage="{stage}"}} {count}']
            lines += [f'a_stage_seconds_sum{{stage="{stage}"}} {count * each}']
        lines += [f'a_stage_seconds_count{{stage="queue"}} {count}', 'a_stage_seconds_sum{stage="queue"} NaN']
        lines += [f'a_stage_seconds_count{{stage="encode"}} {"+Inf" if count > 5 else 0}']
        return ("\n".join(lines) + "\n").encode()

    def do_slow(self) -> None:
        time.sleep(0.02)
        self.answer(200)

    def do_wrong(self) -> None:
        self.answer(200, ["goldfish"])

    def do_long_number(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

    def do_freeze(self) -> None:
        """Answer at once, but for the time of the freeze: then nobody is answered before it is over."""
        now = time.monotonic()
        with self.seen.lock:
            self.seen.first = self.seen.first or now
        begin, end = (self.seen.first + offset for offset in self.seen.freeze)
        if begin <= now < end:
            time.sleep(end - now)
        self.answer(200)

    def do_capacity(self) -> None:
        """Take 20 ms, four at a time: 200 requests/s, however late this thread wakes up."""
        with self.seen.lock:
            slot = self.seen.free.index(min(self.seen.free))
            done = self.seen.free[slot] = max(time.monotonic(), self.seen.free[slot]) + 0.02
            self.seen.capacity.append(done)
        time.sleep(max(done - time.monotonic(), 0))
        self.answer(200)

    def do_every_other(self) -> None:
        self.answer(200 if len(self.seen.requests) % 2 else 503)

    def do_close_silently(self) -> None:
        self.answer(200)
        self.close_connection = True

    def do_reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def do_hang_up(self) -> None:
        self.close_connection = True

    def do_hang(self) -> None:
        time.sleep(2)

    def do_ten(self) -> None:
        """Answer ten requests, and nobody after them."""
        with self.seen.lock:
            before = self.seen.answered
            self.seen.answered += 1
        if before >= 10:
            time.sleep(60)
        self.answer(200)

    def do_cut_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.close_connection = True

    def do_nonsense(self) -> None:
        self.wfile.write(b"hello\r\n\r\n")
        self.close_connection = True

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    seen: Seen

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.seen.closed.release()

    def handle_error(self, *_: Any) -> None:
        pass  # clients of these tests leave as they please


@contextlib.contextmanager
def serve(seen: Seen, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with _Listener(("127.0.0.1", 0), type("Server", (Server,), {"seen": seen})) as listener:
        listener.seen = seen
        if tls:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield listener.server_port
        finally:
            listener.shutdown()


def picture_bytes() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(file, "JPEG")
    return file.getvalue()
