"""Where the server of a page listens, and which requests it answers: those under its own names, from its own pages.

A browser lets every site that it shows send requests to servers on its user's machine and network. Two headers tell
them from the page's own: Host, since a site may let its own name point to another's address (DNS rebinding), and
Origin, since it may send forms and files to an address that is not its own.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit

from zoo.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. ConfigError where the port is in use or the host is not ours."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"A port is a number from 0 to 65535, not {port}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=128)
        # What is accepted inherits it: connections of machines that went away without a word end, if late.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return listening
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Port {port} of {host} cannot be used ({reason}): choose another --port (0: any free one) or --host."
        ) from error


def address_of(listening: socket.socket) -> str:
    """The page's address as a browser on this machine opens it."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Headers(Protocol):
    """Anything that holds a request's headers, whatever their case."""

    def get(self, key: str, /) -> str | None:
        """The first header of this name."""


def is_local(host: str) -> bool:
    """Return whether an address is reached from this machine alone; a name other than localhost is taken as public."""
    address = _address(host)
    return address.is_loopback if address else _hostname(host) == "localhost"


class Names:
    """The names under which a server may be asked: this machine's own, every address, and ``further`` ones.

    ``host`` is what the server listens on. Another site has a name, and cannot send an address in place of it.
    """

    def __init__(self, host: str, further: Iterable[str] = ()) -> None:
        self.further = frozenset(map(_hostname, further)) - {""}
        machine = socket.gethostname().casefold()
        short = machine.partition(".")[0]
        self.names = self.further | ({"localhost", _hostname(host), machine, short, f"{short}.local"} - {""})

    def refusal(self, headers: Headers, *, opening: bool = False) -> tuple[int, str] | None:
        """Return why a request is not answered, as an HTTP status and a sentence, or None for one that is.

        ``opening``: the request opens a page and changes nothing, which a link from anywhere may do.
        """
        host = headers.get("host") or ""
        name = _hostname(host)
        if not (_address(name) or name in self.names or name.endswith(".localhost")):
            return 421, "The page is not known by this name: whoever serves it adds it with --allow-host NAME."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        # Behind a proxy Host may be the address that the proxy asks.
        place = "" if origin is None else origin.partition("://")[2]
        if origin is not None and place != host and _hostname(place) not in self.further:
            return 403, "The page takes nothing from other sites."
        if not opening and site in ("cross-site", "same-site"):
            return 403, "The page gives nothing to other sites."
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _hostname(host: str) -> str:
    """``Name.example:8350`` as ``name.example``; empty for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
