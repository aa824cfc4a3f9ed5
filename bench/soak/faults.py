"""What goes wrong on purpose above and behind the mirror, one thing after the other, and blobs that rot on the disk."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]  # the stubs are not installed

from bench.soak.causes import Cause, Trouble
from bench.soak.driver import Driver
from bench.soak.servers import Program

_FOUND_WITHIN_S = 45.0
_WORTH_BYTES = 100_000


@dataclass(frozen=True)
class Fault:
    """A fault as the fakes take it; ``at`` is put in place of ``value`` by the dice, up to so many."""

    name: str
    said: dict[str, Any]
    up_to: int = 0

    def drawn(self, dice: random.Random) -> dict[str, Any]:
        """Return what is posted."""
        if self.up_to:
            return {**self.said, "value": dice.randrange(self.up_to)}
        return self.said


UPSTREAM = (
    Fault("500", {"wrong": "status", "to": "any", "value": 500, "text": "no"}),
    Fault("503 for a few", {"wrong": "status", "to": "blob", "value": 503, "times": 5}),
    Fault("429", {"wrong": "busy", "to": "any", "text": "1"}),
    Fault("stall", {"wrong": "stall", "to": "blob", "times": 10}, 300_000),
    Fault("stalled head", {"wrong": "delay", "to": "any", "value": 4, "times": 8}),
    Fault("dropped connections", {"wrong": "cut", "to": "blob"}, 400_000),
    Fault("flipped byte", {"wrong": "corrupt", "to": "blob", "times": 6}, 300_000),
    Fault("wrong length", {"wrong": "length", "to": "blob", "value": -1000, "times": 10}),
    Fault("too long a length", {"wrong": "length", "to": "blob", "value": 1000, "times": 10}),
    Fault("wrong range", {"wrong": "range", "to": "blob", "value": 1000, "times": 10}),
    Fault("range ignored", {"wrong": "whole", "to": "blob", "times": 10}),
    Fault("slow", {"wrong": "slow", "to": "blob", "value": 200_000}),
    Fault("challenge", {"wrong": "challenge", "to": "any", "text": "anonymous"}),
    Fault("another digest", {"wrong": "digest", "to": "manifest", "times": 5}),
    Fault("redirect to nowhere", {"wrong": "redirect", "to": "redirect", "text": "http://127.0.0.1:9/x", "times": 5}),
)
OLLAMA = (
    Fault("status 500", {"what": "status", "status": 500, "times": 5}),
    Fault("status 503", {"what": "status", "status": 503, "times": 5}),
    Fault("held", {"what": "hold", "path": "/api/chat", "times": 4}),
    Fault("cut at once", {"what": "cut", "after": 0, "times": 5}),
    Fault("cut in the middle", {"what": "cut", "after": 2, "times": 5}),
    Fault("error in the middle", {"what": "error", "after": 2, "times": 5}),
)


class Faults:
    """Turns faults on and off; ``quiet`` ends all there are and lets none begin."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver
        self.calm_s = (2.0, 9.0)
        self.wrong_s = (1.0, 5.0)

    async def above(self, dice: random.Random) -> None:
        """Have one thing go wrong with the registry for some seconds."""
        await self._calm(dice)
        if self._at.gate.closing:
            return
        if dice.random() < 0.15:
            with self._wrong(Cause.UPSTREAM, "upstream: away"):
                self._at.upstream.say(b"down")
                await self._while_wrong(dice)
                self._at.upstream.say(b"up")
            return
        fault = dice.choice(UPSTREAM)
        with self._wrong(Cause.UPSTREAM, f"upstream: {fault.name}"):
            await _told(self._at.upstream, "POST", fault.drawn(dice))
            await self._while_wrong(dice)
            await _told(self._at.upstream, "DELETE")

    async def behind(self, dice: random.Random) -> None:
        """Have one thing go wrong with one of the Ollamas, or have it die and come back."""
        await self._calm(dice)
        if self._at.gate.closing:
            return
        one, name = dice.choice(((self._at.ollama, "Ollama"), (self._at.node, "node")))
        if dice.random() < 0.25:
            with self._wrong(Cause.OLLAMA, f"{name}: killed"):
                one.send(signal.SIGKILL)
                await one.gone()
                await self._while_wrong(dice)
                await one.start()
            return
        fault = dice.choice(OLLAMA)
        with self._wrong(Cause.OLLAMA, f"{name}: {fault.name}"):
            await _told(one, "POST", fault.drawn(dice))
            await self._while_wrong(dice)
            await _told(one, "DELETE")

    async def beside(self, dice: random.Random) -> None:
        """Kill a process that sends blobs for the mirror (server.workers)."""
        await self._calm(dice)
        helpers = self._at.mirror.helpers() if self._at.up else []
        if not helpers or self._at.gate.closing:
            return
        with self._wrong(Cause.SENDER, "sender: killed"), suppress(psutil.NoSuchProcess):
            dice.choice(helpers).kill()
            await asyncio.sleep(0.2)

    async def _calm(self, dice: random.Random) -> None:
        await self._until(time.monotonic() + dice.uniform(*self.calm_s))

    async def _while_wrong(self, dice: random.Random) -> None:
        await self._until(time.monotonic() + dice.uniform(*self.wrong_s))

    async def _until(self, instant: float) -> None:
        while time.monotonic() < instant and not self._at.gate.closing:  # noqa: ASYNC110  # either may come first
            await asyncio.sleep(0.1)

    def _wrong(self, cause: Cause, what: str) -> Any:
        self._at.record.faults[what] += 1
        return self._at.trouble(cause, what)


@dataclass
class _Rotten:
    path: Path
    digest: str
    hash: str
    place: int
    trouble: Trouble
    up_s: float = 0.0


class Damage:
    """Flips a byte of a blob at rest now and then, and sees to it that the mirror finds out."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver
        self._rotten: list[_Rotten] = []
        self.done = 0
        self.found = 0

    async def harm(self, dice: random.Random) -> None:
        """Flip a byte, sometimes ask for a scrub, and wait until it was found."""
        if self._at.up and (made := self._flip(dice)):
            self._rotten.append(made)
            self.done += 1
            if dice.random() < 0.4:
                await self._scrub()
        await self.watch(2.0)

    async def watch(self, seconds: float) -> None:
        """Look what was found meanwhile; what is not found in a long time of the mirror being up never will be."""
        until, last = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < until:
            await asyncio.sleep(0.25)
            now = time.monotonic()
            for one in list(self._rotten):
                one.up_s += (now - last) if self._at.up else 0.0
                if not _still(one):
                    self._over(one)
                    self.found += 1
                elif one.up_s > _FOUND_WITHIN_S:
                    self._over(one)
                    self._at.record.promise_broken("damage at rest was not found", one.digest)
            last = now

    def heal(self) -> int:
        """While no mirror runs, put back what was flipped and not found yet, so that all else can be looked at."""
        count = 0
        for one in list(self._rotten):
            if _still(one):
                _flip_byte(one.path, one.place)
                count += 1
            self._over(one)
        return count

    @property
    def pending(self) -> int:
        """How many were not found yet."""
        return len(self._rotten)

    def _over(self, one: _Rotten) -> None:
        one.trouble.ended = time.monotonic()
        self._rotten.remove(one)

    def _flip(self, dice: random.Random) -> _Rotten | None:
        folder = self._at.mirror.store / "blobs"
        rotten = {one.path for one in self._rotten}
        with suppress(OSError):
            paths = [one for one in sorted(folder.iterdir()) if one not in rotten]
            paths = [one for one in paths if one.stat().st_size > _WORTH_BYTES]
            if not paths:
                return None
            path = dice.choice(paths)
            place = dice.randrange(path.stat().st_size)
            digest = path.name.removeprefix("sha256-")
            content = bytearray(path.read_bytes())
            content[place] ^= 0xFF
            self._at.damaged.setdefault(digest, set()).add(sha256(content).hexdigest())
            _flip_byte(path, place)
            trouble = self._at.timeline.begin(Cause.DAMAGE, f"damaged: {digest[:12]}", time.monotonic())
            return _Rotten(path, digest, sha256(content).hexdigest(), place, trouble)
        return None

    async def _scrub(self) -> None:
        with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with asyncio.timeout(10), self._at.session() as session:
                async with session.post(f"{self._at.url}/mirror/v1/store/scrub", json={}) as answer:
                    await answer.read()


def _still(one: _Rotten) -> bool:
    try:
        return sha256(one.path.read_bytes()).hexdigest() == one.hash
    except OSError:
        return False


def _flip_byte(path: Path, place: int) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, place)
        os.pwrite(fd, bytes([byte[0] ^ 0xFF]), place)
    finally:
        os.close(fd)


async def _told(program: Program, method: str, said: dict[str, Any] | None = None) -> None:
    """Tell a fake; one that has been killed need not be told."""
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        async with asyncio.timeout(10), aiohttp.ClientSession() as session:
            async with session.request(method, f"{program.url}/faults", json=said) as answer:
                await answer.read()
