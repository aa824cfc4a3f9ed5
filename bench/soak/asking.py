"""People who ask models, by all faces: streamed and whole, some of whom leave before the end."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.soak.causes import Failed, Work
from bench.soak.driver import Driver, Left, Wrong, good

MODEL = "m"
WORDS = "one two three four"
"""What the fake Ollama says, always: an answer that ends well has all of it."""
_USERS = ("ann", "ben", "cleo", "batch")
_LEAVES = 0.12


@dataclass(frozen=True)
class Face:
    """A way to ask: what is sent, the text of one piece, and what shows that an answer is whole."""

    path: str
    body: Mapping[str, Any]
    piece: Callable[[dict[str, Any]], str]
    last: Callable[[dict[str, Any]], bool]
    work: Work = Work.ANSWER


def _delta(said: dict[str, Any]) -> str:
    return "".join(str(one["delta"].get("content") or "") for one in said.get("choices", ()))


_CHAT = [{"role": "user", "content": "hi"}]
FACES = (
    Face(
        "/api/chat",
        {"messages": _CHAT},
        lambda said: str(said.get("message", {}).get("content", "")),
        lambda said: bool(said.get("done")),
    ),
    Face("/api/generate", {"prompt": "hi"}, lambda said: str(said.get("response", "")), lambda said: said["done"]),
    Face(
        "/v1/chat/completions",
        {"messages": _CHAT},
        _delta,
        lambda said: any(one.get("finish_reason") for one in said.get("choices", ())),
    ),
    Face(
        "/v1/messages",
        {"messages": _CHAT, "max_tokens": 100},
        lambda said: str(said.get("delta", {}).get("text", "")),
        lambda said: said.get("type") == "message_stop",
    ),
    Face("/jobs", {"prompt": "hi"}, lambda said: str(said.get("response", "")), lambda said: said["done"], Work.JOB),
)


class Asking:
    """Asks the model ``m``, each time in another way."""

    def __init__(self, driver: Driver) -> None:
        self._at = driver

    async def ask(self, dice: random.Random) -> None:
        """Ask once, as one of several users."""
        face, user = dice.choice(FACES), dice.choice(_USERS)
        leaves_after = dice.randrange(3) if dice.random() < _LEAVES else None
        body = {"model": MODEL, **face.body, "stream": True}
        async with self._at.session(user) as session, self._at.asking(face.work, face.path):
            async with session.post(f"{self._at.url}{face.path}", json=body) as answer:
                await good(answer)
                await self._read(answer, face, leaves_after)

    async def _read(self, answer: aiohttp.ClientResponse, face: Face, leaves_after: int | None) -> None:
        text, whole, count = "", False, 0
        async for said in pieces(answer):
            if "error" in said or said.get("type") == "error":
                raise Wrong(Failed.SAID, json.dumps(said)[:200])
            text += face.piece(said)
            whole = whole or face.last(said)
            count += 1
            if leaves_after is not None and count > leaves_after:
                raise Left
        if not whole:
            raise Wrong("ended as if it were whole", text)
        if text != WORDS:
            raise Wrong("wrong words", text)
        self._at.record.done["answers that were whole"] += 1

    async def pull(self, dice: random.Random) -> None:
        """Pull as Open WebUI does; what comes is delivered to the Ollama."""
        name, mode = self._at.catalog.pick(dice), dice.choice(("now", "now", "queue", "wait"))
        leaves = dice.random() < _LEAVES
        lies = name.endswith(("liar", "giant"))  # what does not fit the store cannot be kept, and is refused
        async with self._at.session() as session, self._at.asking(Work.PULL, f"{name} {mode}", lies=lies, waits=True):
            headers = {"X-Mirror-Pull": mode}
            async with session.post(f"{self._at.url}/api/pull", json={"model": name}, headers=headers) as answer:
                await good(answer)
                last = await last_piece(answer, leaves=leaves)
                if "no room for" in str(last.get("error")):
                    self._at.record.done["pulls by the API for which there was no room"] += 1
                    return
                if "error" in last:
                    raise Wrong(Failed.SAID, str(last["error"]))
                if last.get("status") != "success":
                    raise Wrong("ended as if it were whole", json.dumps(last))
                self._at.record.done["pulls by the API that succeeded"] += 1

    async def delete(self, dice: random.Random) -> None:
        """Delete a delivered model from the Ollama, so that it is delivered anew."""
        name = self._at.catalog.pick(dice)
        async with self._at.session() as session, self._at.asking(Work.ADMIN, f"delete {name}"):
            async with session.delete(f"{self._at.url}/api/delete", json={"model": name}) as answer:
                if answer.status >= 500:  # the Ollama behind may be away
                    raise Wrong(Failed.SAID, str(answer.status))
                await good(answer, 200, 404)


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of an answer that is lines, or events with data."""
    async for raw in answer.content:
        line = raw.strip().removeprefix(b"data: ")
        if line.startswith(b"{"):
            yield json.loads(line)
        await asyncio.sleep(0)


async def last_piece(answer: aiohttp.ClientResponse, *, leaves: bool = False) -> dict[str, Any]:
    """Return the last object of an answer that is lines; ``leaves``: the client is gone after the first."""
    last: dict[str, Any] = {}
    async for said in pieces(answer):
        if leaves:
            raise Left
        last = said
    return last
