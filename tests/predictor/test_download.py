"""What a URL may lead to, and how long and how large it may be."""

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any, NoReturn

import pytest
import trustme

BODY = b"picture" * 1000


class Site(BaseHTTPRequestHandler):
    """A web site with a page for every way to misbehave."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        page = getattr(self, "page_" + re.split("[/?#]", self.path)[1], self.page_missing)
        with contextlib.suppress(OSError):  # the client may have had enough
            page()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page_missing(self) -> None:
        self.answer(404)

    def page_picture(self) -> None:
        self.answer(200, BODY)

    def page_host(self) -> None:
        self.answer(200, self.headers["Host"].encode())

    def page_away(self) -> None:
        self.answer(302, Location="/picture")

    def page_loop(self) -> None:
        self.answer(302, Location="/loop")

    def page_file(self) -> None:
        self.answer(302, Location="file:///etc/passwd")

    def page_metadata(self) -> None:
        self.answer(302, Location="http://169.254.169.254/latest/meta-data/")

    def page_large(self) -> None:
        self.answer(200, b"x" * 200_000)

    def page_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 65536)

    def page_dripping_head(self) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 600:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def page_dripping_body(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def page_silence(self) -> None:
        time.sleep(1)

    def page_nonsense(self) -> None:
        self.wfile.write(b"220 mail.example.com ESMTP\r\n")
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def asked() -> list[str]:
    return []


@contextlib.contextmanager
def serve(asked: list[str], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Site", (Site,), {"asked": asked})) as server:
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.fixture
def site(asked: list[str]) -> Iterator[str]:
    with serve(asked) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_port(asked: list[str], authority: trustme.CA) -> Iterator[int]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with serve(asked, tls) as port:
        yield port


@pytest.mark.parametrize("path", ["/picture", "/picture?size=1&q=a b", "/picture/é", "/picture#top", "/away"])
def test_fetches(download: ModuleType, site: str, path: str) -> None:
    """A page is fetched whole, through redirects, and with whatever its path needs escaped."""
    assert download.download(site + path, allow_private=True) == BODY


def test_escapes_are_kept(download: ModuleType, site: str, asked: list[str]) -> None:
    """What is escaped stays as it is, and what has to be escaped is."""
    download.download(site + "/picture/a%20b c?x=%2F&y=ü", allow_private=True)
    assert asked == ["/picture/a%20b%20c?x=%2F&y=%C3%BC"]


def test_https(download: ModuleType, secure_port: int, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is fetched over TLS from a host whose certificate is good and bears its name."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(download, "_tls", lambda: trusting)
    assert download.download(f"https://localhost:{secure_port}/away", allow_private=True) == BODY
    with pytest.raises(download.DownloadError, match=r"not valid for '127\.0\.0\.1'"):
        download.download(f"https://127.0.0.1:{secure_port}/picture", allow_private=True)


def test_https_of_a_stranger(download: ModuleType, secure_port: int, asked: list[str]) -> None:
    """A host whose certificate nobody vouches for is sent nothing."""
    with pytest.raises(download.DownloadError, match="certificate verify failed"):
        download.download(f"https://localhost:{secure_port}/picture", allow_private=True)
    assert asked == []


REFUSED = {
    "file:///etc/passwd": "only http and https URLs are fetched, not file",
    "ftp://example.com/cat.jpg": "only http and https URLs are fetched, not ftp",
    "gopher://127.0.0.1:6379/_INFO": "only http and https URLs are fetched, not gopher",
    "data:image/png;base64,aGVsbG8=": "only http and https URLs are fetched, not data",
    "cat.jpg": "only http and https URLs are fetched, not one without a scheme",
    "": "only http and https URLs are fetched, not one without a scheme",
    "http://": "the URL names no host",
    "http:///cat.jpg": "the URL names no host",
    "http://[::1/cat.jpg": "not a URL",
    "http://example.com:99999/": "not a URL",
    "http://" + "a" * 70 + ".example/": "no host is named",
    "http://two words/": "no host is named",
}


@pytest.mark.parametrize("url", REFUSED)
def test_refused(download: ModuleType, url: str) -> None:
    """What is no http or https URL is refused, even where private addresses are allowed."""
    with pytest.raises(download.DownloadError, match=REFUSED[url]):
        download.download(url, allow_private=True)


PRIVATE = [
    "http://127.0.0.1:{port}/picture",
    "http://localhost:{port}/picture",
    "http://127.1:{port}/picture",
    "http://2130706433:{port}/picture",
    "http://0x7f000001:{port}/picture",
    "http://0177.0.0.1:{port}/picture",
    "http://0.0.0.0:{port}/picture",
    "http://user@127.0.0.1:{port}/picture",
    "http://example.com@127.0.0.1:{port}/picture",
    "http://[::1]:{port}/picture",
    "http://[::ffff:127.0.0.1]:{port}/picture",
    "https://127.0.0.1:{port}/picture",
    "http://169.254.169.254/latest/meta-data/",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_private_urls(download: ModuleType, site: str, asked: list[str], url: str) -> None:
    """However it is written, a private address is refused before anything is sent to it."""
    with pytest.raises(download.DownloadError, match="not on the public internet"):
        download.download(url.format(port=site.rpartition(":")[2]))
    assert asked == []


ADDRESSES = {
    "8.8.8.8": True,
    "2606:4700:4700::1111": True,
    "::ffff:8.8.8.8": True,
    "64:ff9b::808:808": True,
    "10.0.0.1": False,
    "100.64.0.1": False,
    "127.0.0.1": False,
    "169.254.169.254": False,
    "172.16.0.1": False,
    "192.168.1.1": False,
    "192.0.2.1": False,
    "198.18.0.1": False,
    "224.0.0.1": False,
    "240.0.0.1": False,
    "255.255.255.255": False,
    "0.0.0.0": False,
    "::": False,
    "::1": False,
    "::7f00:1": False,
    "fe80::1": False,
    "fe80::1%lo": False,
    "fc00::1": False,
    "fec0::1": False,
    "ff02::1": False,
    "2001:db8::1": False,
    "::ffff:10.0.0.1": False,
    "::ffff:169.254.169.254": False,
    "64:ff9b::7f00:1": False,
    "2002:7f00:1::": False,
    "2001:0:7f00:1::": False,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_public_addresses(download: ModuleType, address: str) -> None:
    """Only addresses of the public internet are public, with those of IPv4 that are wrapped in IPv6."""
    assert download._is_public(address) is ADDRESSES[address]


def test_every_address_is_checked(download: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with one public and one private address is refused."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(download.DownloadError, match="not on the public internet"):
        download.download("http://rebind.example/")


def test_a_name_is_resolved_once(
    download: ModuleType, site: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to the address that was checked: a second answer of the name server is never asked for."""
    port = int(site.rpartition(":")[2])
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())
    monkeypatch.setattr(download, "_is_public", lambda address: True)
    assert download.download(f"http://rebind.example:{port}/picture") == BODY
    assert (answers, asked) == ([], ["/picture"])


@pytest.mark.parametrize("host", ["[2606:4700::6810:84e5]", "[2606:4700::1]", "example.com"])
def test_a_host_is_told_as_it_stands(
    download: ModuleType, site: str, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The last part of an address of IPv6 is not taken for a port where none is given."""
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(site.rpartition(":")[2])))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    assert download.download(f"http://{host}/host", allow_private=True) == host.encode()


def test_names_that_nobody_awaits_are_not_looked_up(download: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many requests for names whose server is silent delay the next one by no more than those that are under way."""
    asked = []

    def silent(host: str, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        time.sleep(1)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    for number in range(12):
        with pytest.raises(download.DownloadError, match="no complete answer"):
            download.download(f"http://{number}.example/", seconds=0.02)
    with pytest.raises(download.DownloadError, match="no host is named"):
        download.download("http://last.example/", seconds=5)
    assert len(asked) <= 5


def test_proxies_are_not_used(download: ModuleType, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would resolve the name for itself, so it is passed by."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert download.download(site + "/picture", allow_private=True) == BODY


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/missing", "the server answered 404 Not Found"),
        ("/loop", "more than 3 redirects"),
        ("/file", "only http and https URLs are fetched, not file"),
        ("/large", "larger than 0.0953674 MB"),
        ("/endless", "larger than 0.0953674 MB"),
        ("/dripping_head", "no complete answer within 0.5 seconds"),
        ("/dripping_body", "no complete answer within 0.5 seconds"),
        ("/silence", "no complete answer within 0.5 seconds"),
        ("/nonsense", r"no answer \(BadStatusLine\)"),
    ],
)
def test_bad_servers(download: ModuleType, site: str, path: str, why: str) -> None:
    """Size, redirects and the whole time are limited, however a server tries to stretch them."""
    with pytest.raises(download.DownloadError, match=why):
        download.download(site + path, allow_private=True, max_bytes=100_000, seconds=0.5)


def test_redirects_are_checked(download: ModuleType, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public page that redirects to a private address is not followed there."""
    public = download._is_public
    monkeypatch.setattr(download, "_is_public", lambda address: address == "127.0.0.1" or public(address))
    with pytest.raises(download.DownloadError, match=r"'169\.254\.169\.254' is not on the public internet"):
        download.download(site + "/metadata")


def test_nobody_listens(download: ModuleType) -> None:
    """A closed port is one line, and tells no address."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(download.DownloadError, match=r"^no answer \(Connection refused\)$"):
            download.download(url, allow_private=True)
