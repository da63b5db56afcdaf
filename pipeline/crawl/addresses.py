"""Which addresses a request may reach, decided when its socket is made.

A socket is opened only to a public address, or to a private one with a permit. What is looked at is the address itself,
so neither a name nor a redirect leads into the local network.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from pipeline.crawl.urls import is_loopback

NAME_THREADS = 32
"""Resolving a name keeps a thread waiting."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where it wraps an IPv4 address; else ValueError."""
    ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        return ip in _GLOBAL_UNICAST and ip.is_global
    return ip.is_global and not ip.is_multicast


def may_be_public(host: str) -> bool:
    """Whether a host is at a public address, or is a name, which a proxy would resolve."""
    try:
        return is_public(host)
    except ValueError:
        return True


@dataclass
class Permit:
    """Whether the request under way may reach a private address, and what it was refused."""

    host: str
    private: bool
    refused: str | None = None


permits: ContextVar[Permit] = ContextVar("permits")
"""The permit of the request under way; tasks that it starts see the same one."""


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket to connect to `address`, which `getaddrinfo` would give; OSError where it may not be."""
    family, kind, protocol, _, place = address
    permit = permits.get()
    if not permit.private and not is_public(place[0]):
        permit.refused = f"{permit.host} is at the private address {place[0]}; name it in private_hosts to allow that"
        raise OSError(permit.refused)
    return socket.socket(family, kind, protocol)


class Resolver(AbstractResolver):
    """The system's resolver, but that localhost and what is below it is this machine (RFC 6761, 6.3)."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NAME_THREADS, "names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`."""
        name = "127.0.0.1" if is_loopback(host) else host
        ask = partial(socket.getaddrinfo, name, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except UnicodeError as problem:  # a label that DNS cannot hold
            raise OSError(str(problem)) from None
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(place[0]), port=port, family=kind, proto=protocol, flags=flags)
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        """Wait for no name."""
        self._threads.shutdown(wait=False, cancel_futures=True)
