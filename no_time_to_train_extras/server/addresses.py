"""Who may send requests to a server of this package, and what each of its answers says to browsers."""

import ipaddress
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from no_time_to_train.errors import UserError
from no_time_to_train.ranges import Range

if TYPE_CHECKING:
    from starlette.datastructures import Headers

Port = Annotated[int, Range(1, 65535)]

#: Headers of every answer: no other page shows this one in a frame, or reads its files.
HEADERS = {
    "x-frame-options": "DENY",
    "content-security-policy": "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def plain_host(host: str) -> str:
    """An address to listen on as browsers send it: 127.1 is 127.0.0.1, and [::1] is ::1. Names stay."""
    host = host.strip("[]")
    return host if "%" in host else next(iter(_addresses(host, socket.AI_NUMERICHOST)), host)


@lru_cache  # some servers ask with each request
def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or each one that a name stands for, lets only this computer in."""
    addresses = _addresses(host)
    return bool(addresses) and all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _addresses(host: str, flags: int = 0) -> list[str]:
    """The addresses that a name or a number stands for; none where it is neither."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return []
    return [str(place[0]) for *_, place in found]


def foreign_reason(headers: "Headers", host: str, name: str) -> str:
    """Why a request is refused that another page sent, or that a name of another page led here; empty where it is not.

    Args:
        headers: Of the request.
        host: The address that the server listens on.
        name: What messages call the server.
    """
    asked, origins = headers.get("host", ""), headers.getlist("origin")
    if not is_own(asked, host):
        return f"{name} is not {asked!r}: open it at the address that it printed"
    foreign = headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
    foreign |= any(origin.rstrip("/").partition("://")[2] != asked for origin in origins)
    return f"another page may not use {name}" if foreign else ""


def is_own(header: str, host: str) -> bool:
    """Whether the ``Host`` of a request is this server, and not a name that another page let lead here.

    Args:
        host: The address that the server listens on. Where this is all of them, numbers lead nowhere else, and names
            must be this computer's.
    """
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    name = name.lower()
    if name in ("localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"):
        return True
    if host not in ("0.0.0.0", "::"):
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        own = socket.gethostname().lower()
        return name in (own, f"{own}.local", socket.getfqdn().lower())
    return True


def url_of(host: str, port: int) -> str:
    """What a browser opens."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_address(host: str, port: int | None) -> None:
    """Check that a server can listen on an address, before the networks are loaded."""
    try:
        family, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except (OSError, UnicodeError) as error:
        place = host if port is None else f"{host}, port {port}"
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {place}: {reason}; choose another --host or --port") from error
