"""Who minds the mirror: admins with their commands, people who look, the node of the hub, settings read again."""

import asyncio
import json
import random
import signal
import time

from bench.soak.asking import MODEL, last_piece
from bench.soak.causes import Failed, Work
from bench.soak.driver import Driver, Left, Wrong, good
from bench.soak.models import GIANT, LIAR, LIMIT_BYTES

_PAGES = (
    "/mirror/stats",
    "/mirror/v1/models",
    "/mirror/v1/store",
    "/mirror/v1/queue",
    "/mirror/v1/turns",
    "/metrics",
    "/api/tags",
    "/api/queue",
    "/api/v1/prompts",
    "/nodes",
    "/v2/_catalog",
)
_AS_PAGES = ("/", "/mirror/models", "/mirror/pulls", "/prompts", "/mirror/users", "/mirror/ollamas", "/mirror/stats")
_LONG: tuple[tuple[str, dict[str, object]], ...] = (
    ("store/gc", {}),
    ("store/gc", {"dry_run": True}),
    ("store/scrub", {}),
    ("store/repair", {}),
    ("outdated", {"names": []}),
)


class Minding:
    """Commands and looks."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver

    async def command(self, dice: random.Random) -> None:
        """Give one order."""
        what = dice.choice(("pin", "remove", "long", "long", "export", "queue"))
        await {
            "pin": self._pin,
            "remove": self._remove,
            "long": self._long,
            "export": self._export,
            "queue": self._queue,
        }[what](dice)

    async def _pin(self, dice: random.Random) -> None:
        """Pin a model for a moment."""
        name = self._name(dice)
        pins = f"{self._at.url}/mirror/v1/store/pins"
        async with self._at.session() as session:
            async with self._at.asking(Work.ADMIN, f"pin {name}"):
                async with session.post(pins, json={"pattern": name}) as answer:
                    await good(answer)
            await asyncio.sleep(dice.uniform(0, 2))
            async with self._at.asking(Work.ADMIN, f"unpin {name}"):
                async with session.delete(f"{pins}/{name}") as answer:
                    await good(answer, 200, 404)

    async def _remove(self, dice: random.Random) -> None:
        name = self._name(dice)
        async with self._at.session() as session, self._at.asking(Work.ADMIN, f"rm {name}"):
            async with session.delete(f"{self._at.url}/mirror/v1/models/{name}") as answer:
                await good(answer, 200, 404, 409)

    async def _long(self, dice: random.Random) -> None:
        """Have the store tidied, hashed or mended, or ask what is new; read every line."""
        path, body = dice.choice(_LONG)
        async with self._at.session() as session, self._at.asking(Work.ADMIN, path):
            async with session.post(f"{self._at.url}/mirror/v1/{path}", json=body) as answer:
                await good(answer)
                last = await last_piece(answer)
                if "error" in last:
                    raise Wrong(Failed.SAID, str(last["error"]))

    async def _export(self, dice: random.Random) -> None:
        """Read a bundle of all there is, or a part of it."""
        stops_at = dice.randrange(LIMIT_BYTES) if dice.random() < 0.3 else None
        async with self._at.session() as session, self._at.asking(Work.ADMIN, "export"):
            async with session.post(f"{self._at.url}/mirror/v1/store/export", json={"names": []}) as answer:
                await good(answer, 200, 400, 404, 409)
                count = 0
                async for chunk in answer.content.iter_any():
                    count += len(chunk)
                    if stops_at is not None and count > stops_at:
                        raise Left

    async def _queue(self, dice: random.Random) -> None:
        """Want a model, and perhaps take that back."""
        name = self._name(dice)
        async with self._at.session() as session, self._at.asking(Work.ADMIN, f"queue {name}"):
            async with session.post(f"{self._at.url}/mirror/v1/queue", json={"name": name}) as answer:
                await good(answer, 200, 202)
            if dice.random() < 0.5:
                orders = f"{self._at.url}/mirror/v1/queue/{dice.choice(('cancel', 'now'))}"
                async with session.post(orders, json={"job": name}) as answer:
                    await good(answer, 200, 404)

    def _name(self, dice: random.Random) -> str:
        names = [one for one in self._at.catalog.names if one not in (LIAR, GIANT)]
        return dice.choice(names).removeprefix("library/")

    async def look(self, dice: random.Random) -> None:
        """Look at what programs look at, or at a page as a browser does."""
        as_page = dice.random() < 0.3
        path = dice.choice(_AS_PAGES if as_page else _PAGES)
        headers = {"Accept": "text/html"} if as_page else {}
        async with self._at.session() as session, self._at.asking(Work.LOOK, path):
            async with session.get(f"{self._at.url}{path}", headers=headers) as answer:
                await good(answer)
                await answer.read()

    async def watch(self, dice: random.Random) -> None:
        """Follow the news for some seconds."""
        until = time.monotonic() + dice.uniform(0.5, 6)
        async with self._at.session() as session, self._at.asking(Work.EVENTS):
            async with session.get(f"{self._at.url}/mirror/v1/events") as answer:
                await good(answer)
                async for _ in answer.content:
                    if time.monotonic() > until or self._at.gate.closing:
                        raise Left
                raise Wrong(Failed.BROKEN, "the stream ended")

    async def beat(self, _: random.Random) -> None:
        """Tell the hub of a node that is nowhere, so that what is sent there goes on to another."""
        if not self._at.url:
            return
        said = {"node_id": "is-nowhere", "ipv4": "127.0.0.1", "port": 9, "models": [f"{MODEL}:latest"]}
        async with self._at.session() as session, self._at.asking(Work.HEARTBEAT):
            async with session.post(f"{self._at.url}/nodes/heartbeat", json=said) as answer:
                await good(answer)

    async def reload(self, dice: random.Random) -> None:
        """Have the settings read again: others, or such as cannot be."""
        if not self._at.up:  # before it serves the signal is not for it, and it needs settings that can be
            return
        if dice.random() < 0.3:
            self._at.mirror.settings.write_text(json.dumps({"cache": {"max_size": "a lot"}}))
        else:
            self._at.mirror.write(
                cache__max_size=int(LIMIT_BYTES * dice.uniform(0.6, 1.2)),
                cache__low_water=dice.choice(("60%", "80%")),
                pulls__rate=dice.choice((None, "8MB/s")),
            )
        self._at.mirror.send(signal.SIGHUP)
        self._at.record.endings["SIGHUP"] += 1
        await asyncio.sleep(dice.uniform(0.5, 2))
        self._at.mirror.write()
