"""Prompts and batches that are left at the mirror: whatever ends meanwhile, what was taken is answered."""

import asyncio
import json
import random
import time
from typing import Any

import aiohttp

from bench.soak.asking import MODEL, WORDS
from bench.soak.causes import Failed, Work
from bench.soak.driver import Driver, Wrong, good

_LOOKS = 120
_LOOK_S = 0.5
_LINES = 5
_OVER = ("completed", "failed", "cancelled", "expired")


class Leaving:
    """Leaves work at the mirror, and comes back for it."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver

    async def prompt(self, dice: random.Random) -> None:
        """Leave a prompt; look until it is answered, also across restarts."""
        body = {"model": MODEL, "prompt": "hi", "run": dice.choice(("now", "now", "idle"))}
        begun = time.monotonic()
        async with self._at.session(dice.choice(("ann", "ben"))) as session:
            said = await self._sent(session, Work.PROMPT, "/api/v1/prompt", body)
            if said is None:
                return
            done = await self._until_over(session, Work.PROMPT, f"/api/v1/prompt/{said['id']}/result")
            async with self._at.asking(Work.PROMPT, said["id"]):
                self._judge(done, begun)

    def _judge(self, done: dict[str, Any] | None, begun: float) -> None:
        if done is None:
            self._at.record.done["prompts that were still to be answered"] += 1
        elif done.get("status") == "completed" and done.get("result") == WORDS:
            self._at.record.done["prompts answered"] += 1
        elif done.get("status") == "failed" and self._at.timeline.causes(begun, time.monotonic()):
            self._at.record.done["prompts that failed by a fault"] += 1
        else:
            raise Wrong("a prompt that came to nothing", json.dumps(done)[:300])

    async def batch(self, dice: random.Random) -> None:
        """Leave a file of lines; each is answered once, or is among the errors."""
        ids = [f"line-{number}" for number in range(dice.randint(1, _LINES))]
        begun = time.monotonic()
        async with self._at.session("batch") as session:
            file = await self._uploaded(session, ids)
            if file is None:
                return
            wanted = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batch = await self._sent(session, Work.BATCH, "/v1/batches", wanted)
            if batch is None:
                return
            done = await self._until_over(session, Work.BATCH, f"/v1/batches/{batch['id']}")
            if done is None:
                self._at.record.done["batches that were still to be answered"] += 1
                return
            await self._check_lines(session, done, ids, begun)

    async def _uploaded(self, session: aiohttp.ClientSession, ids: list[str]) -> str | None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        content = "".join(json.dumps({"custom_id": one, **line}) + "\n" for one in ids).encode()
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename="in.jsonl")
        async with (
            self._at.asking(Work.BATCH, "upload"),
            session.post(f"{self._at.url}/v1/files", data=form) as answer,
        ):
            await good(answer)
            return str((await answer.json())["id"])
        return None

    async def _check_lines(
        self, session: aiohttp.ClientSession, done: dict[str, Any], ids: list[str], begun: float
    ) -> None:
        found: list[str] = []
        async with self._at.asking(Work.BATCH, f"lines of {done['id']}"):
            for key in ("output_file_id", "error_file_id"):
                if done.get(key):
                    async with session.get(f"{self._at.url}/v1/files/{done[key]}/content") as answer:
                        await good(answer)
                        found += [json.loads(one)["custom_id"] for one in (await answer.read()).splitlines()]
            if sorted(found) != sorted(ids):
                raise Wrong("lines lost or doubled", f"{sorted(found)} of {sorted(ids)}")
            if done["request_counts"]["failed"] and not self._at.timeline.causes(begun, time.monotonic()):
                raise Wrong("a batch that failed", json.dumps(done)[:300])
            self._at.record.done["batches answered"] += 1

    async def _sent(
        self, session: aiohttp.ClientSession, work: Work, path: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        async with self._at.asking(work, path), session.post(f"{self._at.url}{path}", json=body) as answer:
            await good(answer)
            return dict(await answer.json())
        return None

    async def _until_over(self, session: aiohttp.ClientSession, work: Work, path: str) -> dict[str, Any] | None:
        """Look every half second; None where it is to rest meanwhile or takes too long."""
        for _ in range(_LOOKS):
            async with self._at.asking(work, path), session.get(f"{self._at.url}{path}") as answer:
                if answer.status == 404:
                    self._at.record.promise_broken("work was taken and then not known", path)
                    return None
                await good(answer)
                said = dict(await answer.json())
                if said["status"] in _OVER:
                    return said
            if self._at.gate.closing:
                return None
            await asyncio.sleep(_LOOK_S)
        raise_late = Wrong(Failed.LATE, path)
        async with self._at.asking(work, path):
            raise raise_late
        return None
