"""Where something listens, and the address by which it is reached and shown."""

import pytest

from cortex.environments.address import Address


@pytest.mark.parametrize(
    ("listen", "host", "reached", "shown"),
    [
        ("127.0.0.1:8888", "127.0.0.1", "127.0.0.1:8888", "localhost:8888"),
        ("0.0.0.0:8888", "0.0.0.0", "127.0.0.1:8888", "localhost:8888"),
        ("10.0.0.7:80", "10.0.0.7", "10.0.0.7:80", "10.0.0.7:80"),
        ("[::]:8888", "::", "[::1]:8888", "[::1]:8888"),
        ("[fe80::1]:80", "fe80::1", "[fe80::1]:80", "[fe80::1]:80"),
        ("a.example:443", "a.example", "a.example:443", "a.example:443"),
    ],
)
def test_an_address(listen: str, host: str, reached: str, shown: str) -> None:
    """IPv6 stands in brackets, and is not called localhost; what listens everywhere is reached at this machine."""
    found = Address.of(listen)
    assert (found.host, str(found)) == (host, listen)
    assert (str(found.reached), str(found.shown)) == (reached, shown)
