"""Imported by every Python process of a guarded crawl, as its folder is on PYTHONPATH: nothing leaves this machine.

It answers name lookups from a table, refuses every connection that is not to loopback, and writes down what was tried:
one line of JSON a lookup, connection or datagram into the file `GUARD_LOG`. `GUARD_NAMES` is a JSON object: a name and
the answers it gives, one lookup after the other, each a list of addresses; the last one stays.
"""

import errno
import ipaddress
import json
import os
import socket
import sys
from typing import Any

_LOG = os.open(os.environ["GUARD_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_NAMES: dict[str, list[list[str]]] = json.loads(os.environ["GUARD_NAMES"])
_SENDING = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
_LOOKING_UP = {"socket.gethostbyname", "socket.gethostbyaddr"}


def _write(event: str, target: str) -> None:
    os.write(_LOG, (json.dumps({"event": event, "target": target, "pid": os.getpid()}) + "\n").encode())


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _LOOKING_UP:
        _write("lookup", str(arguments[0]))
    if event not in _SENDING or not isinstance(arguments[1], tuple):
        return
    host, port = arguments[1][:2]
    _write(event, f"{host} {port}")
    address = ipaddress.ip_address(host)
    if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"the guard let nothing through to {host}")


def _is_address(name: str) -> bool:
    """Whether the C library takes it for an address, in whatever notation, and so asks no name server."""
    try:
        socket.inet_aton(name)
    except OSError:
        return ":" in name
    return True


def _getaddrinfo(host: Any, port: Any, family: int = 0, *more: Any, **named: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name == "localhost" or _is_address(name):
        return _real(host, port, family, *more, **named)
    _write("lookup", name)
    answers = _NAMES.get(name.lower().rstrip("."), [[]])
    found = []
    for address in answers.pop(0) if len(answers) > 1 else answers[0]:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        if family in (0, kind):
            found += _real(address, port, kind, *more, **named)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return found


_real = socket.getaddrinfo
socket.getaddrinfo = _getaddrinfo
sys.addaudithook(_watch)
