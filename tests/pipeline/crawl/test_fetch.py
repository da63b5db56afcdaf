"""Single requests: where they may go. What hostile servers do to them stands in test_hostile.py."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from pipeline.crawl.addresses import is_public
from pipeline.crawl.fetch import Failure, Fetcher


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "[2606:4700::1111]", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",  # carrier-grade NAT
        "169.254.169.254",  # cloud metadata
        "198.18.0.1",  # benchmarks
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00:ec2::254",  # cloud metadata
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::",
        "fec0::1",  # site-local, of old
        "64:ff9b:1::7f00:1",  # NAT64 of a network's own
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
    ],
)
def test_addresses_of_this_machine_and_its_network_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """A socket that listens at 127.0.0.1 and must not be connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def outcome(url: str, *named: str) -> Failure:
    async def ask() -> None:
        async with Fetcher(user_agent="test", timeout_s=2, named=named) as fetcher:
            await fetcher.fetch(url, max_bytes=1000)

    with pytest.raises(Failure) as failure:
        asyncio.run(ask())
    return failure.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a.localhost", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_not_connected_to(canary: socket.socket, host: str) -> None:
    failure = outcome(f"http://{host}:{canary.getsockname()[1]}/")
    assert failure.outcome == "private_address"
    assert str(failure).startswith(f"{host.strip('[]')} is at the private address ")
    assert str(failure).endswith("name it in private_hosts to allow that")
    with pytest.raises(BlockingIOError):
        canary.accept()


def test_a_named_host_is(canary: socket.socket) -> None:
    assert outcome(f"http://localhost:{canary.getsockname()[1]}/", "localhost").outcome == "timeout"
    canary.accept()


def test_an_environment_proxy_is_not_asked_for_a_private_address(
    canary: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{canary.getsockname()[1]}")
    assert outcome("http://169.254.169.254/").outcome == "private_address"
    with pytest.raises(BlockingIOError):
        canary.accept()
    assert outcome("http://www.example.org/").outcome == "timeout"
    canary.accept()
