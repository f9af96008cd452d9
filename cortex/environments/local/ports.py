"""Which port an API has. Commands agree on it through the ``port`` files under CORTEX_HOME."""

import errno
from collections.abc import Collection

from cortex.environments.address import Address
from cortex.environments.fields import FieldError
from cortex.environments.state import Home
from cortex.errors import UserError

FIRST = 8888
LAST = 65535
_FIELD = "networking.local_port"


def assign(
    home: Home, name: str, wanted: int | None, *, host: str, held: int, front: Collection[int] = frozenset()
) -> int:
    """Choose and record a port: the one wanted, else the one the API had, else the first free one from 8888 up.

    ``held`` is the port that the API listens on now, 0 for none; those of the ``front`` are left to it. FieldError when
    the wanted one cannot be had, UserError where none of ``host`` can.
    """
    with home.lock(".ports", wait=True):
        others = {port: api for api, port in home.ports().items() if api != name}
        port = wanted or home.api(name).port() or held or FIRST
        if wanted and wanted in others:
            raise FieldError(_FIELD, _assigned(wanted, others[wanted]))
        number = host if port == held else Address(host, port).resolved.host  # a name is looked up once for all ports
        while port != held and (port in others or port in front or not _is_free(Address(number, port))):
            if wanted or port == LAST:
                raise FieldError(_FIELD, _foreign(port))
            port += 1
        home.api(name).assign_port(port)
        return port


def expected(home: Home, name: str, taken: Collection[int]) -> int:
    """Return the port that `assign` would choose when ``taken`` were assigned too; no port is tried or recorded."""
    others = {*taken, *(port for api, port in home.ports().items() if api != name)}
    port = home.api(name).port() or FIRST
    while port in others and port < LAST:
        port += 1
    return port


def _is_free(place: Address) -> bool:
    try:
        place.bind()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise UserError(f"cannot listen on {place.host} port {place.port}: {error.strerror or error}") from error
        return False
    return True


def _assigned(port: int, other: str) -> str:
    return (
        f"port {port} has already been assigned to api {other}, please delete the api with "
        f"`cortex delete {other} --env local` or use another port"
    )


def _foreign(port: int) -> str:
    return (
        f"port {port} is being used by a non-cortex process; please specify a different port "
        f"or make port {port} available"
    )
