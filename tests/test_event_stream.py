"""The news as server-sent events: what is told to whom, and what becomes of those who do not read it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mirror.access import Keyring, Scope
from mirror.app import RunningMirror
from mirror.events import DigestMismatched, Seen
from mirror.values import Digest
from mirror.web.watch import Watch
from tests.behind import asked, fronted
from tests.fakes.registry import running_fake_registry
from tests.support import SOON_S, Machine, add_blob, eventually, mirrored
from tests.test_turns import GENERATE

Event = tuple[str, dict[str, Any]]
PATH = "/mirror/v1/events"


@asynccontextmanager
async def watched(client: Machine, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Events as they come, in time."""
    async with asyncio.timeout(SOON_S), client.session.get(client.url(PATH + query), headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    topic = ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            topic = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield topic, json.loads(line.removeprefix("data: "))


async def until(events: AsyncIterator[Event], kind: str) -> Event:
    """The next of a kind."""
    return await anext(one async for one in events if one[1].get("kind") == kind)


def _watch(mirror: RunningMirror) -> Watch:
    return mirror.parts.watch


async def test_a_pull_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """Who comes is told first how things are."""
    async with running_fake_registry() as fake:
        add_blob(fake, 100_000, "library/m:latest")
        async with mirrored(tmp_path, fake) as (_, client), watched(client) as events:
            assert (await until(events, "progress"))[1]["fills"] == []
            added = await asked(client, "/mirror/v1/queue/add", {"name": "m", "at_once": True})
            assert added[0] == 202
            seen: dict[str, Event] = {}
            while "pull_ended" not in seen:
                topic, said = await anext(events)
                assert said["at"].endswith("+00:00")
                seen[said["kind"]] = topic, said
            assert {seen[kind][0] for kind in ("fill_started", "fill_ended")} == {"fills"}
            assert (seen["model_stored"][0], seen["model_stored"][1]["name"]) == ("store", "m:latest")
            assert (seen["pull_ended"][0], seen["pull_ended"][1]["outcome"]) == ("pulls", "completed")


async def test_turns_and_ollamas_are_told(tmp_path: Path) -> None:
    """Each answer, and who can be reached."""
    async with fronted(tmp_path) as at, watched(at.client, "?topics=turns,nodes") as events:
        assert (await until(events, "state"))[1]["state"] == "unknown", "nobody has asked it anything yet"
        assert (await asked(at.client, "/api/generate", GENERATE))[0] == 200
        topic, said = await until(events, "answered")
        assert (topic, said["model"], said["status"]) == ("turns", "m", 200)
        assert (await until(events, "state"))[1]["state"] == "online"


async def test_topics_that_are_none_are_refused(tmp_path: Path) -> None:
    """With those that there are."""
    async with fronted(tmp_path) as at:
        answer = await at.client.get(f"{PATH}?topics=fills,gossip")
        assert (answer.status, b"topics=fills,pulls,turns,nodes,store,prompts" in answer.body) == (400, True)


async def test_a_hidden_model_is_told_to_admins_alone(tmp_path: Path) -> None:
    """Its name is in no event of another's."""
    ring = Keyring(tmp_path / "state")
    keys = {scope: f"Bearer {ring.add(scope.value, [scope])[1]}" for scope in (Scope.PULL, Scope.ADMIN)}
    async with running_fake_registry() as fake:
        for seed, name in enumerate(("secret", "plain")):
            add_blob(fake, 1000, f"library/{name}:latest", seed)
        async with (
            mirrored(tmp_path, fake, security__rules=[{"deny": ["secret"], "users": ["pull"]}]) as (mirror, client),
            watched(client, "?topics=pulls,store", Authorization=keys[Scope.PULL]) as less,
            watched(client, "?topics=pulls,store", Authorization=keys[Scope.ADMIN]) as more,
        ):
            for name in ("secret", "plain"):
                said = {"name": name, "at_once": True}
                added = await asked(client, "/mirror/v1/queue/add", said, Authorization=keys[Scope.ADMIN])
                assert added[0] == 202
                await until(more, "pull_ended")
            assert (await until(less, "pull_ended"))[1]["name"] == "plain:latest"
            assert (await client.get(PATH)).status == 401
            assert mirror.parts.watch.watchers == 2


async def test_who_does_not_read_holds_up_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    """The oldest of what is unread goes."""
    async with fronted(tmp_path) as at:
        events, watch = at.mirror.parts.events, _watch(at.mirror)
        url = at.client.url("/")
        with socket.create_connection((str(url.host), int(url.port or 0))) as raw:
            raw.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {url.authority}\r\n\r\n".encode())

            async def one_watches() -> bool:
                return watch.watchers == 1

            await eventually(one_watches)
            large = {"text": "x" * 60_000}
            for number in range(2000):
                events.publish(Seen("store", "large", {**large, "number": number}))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            async with watched(at.client) as others:
                events.publish(DigestMismatched(Digest.of(b"x")))
                await until(others, "digest_mismatched")
            raw.settimeout(SOON_S)
            with raw.makefile("rb") as answer:
                said = await asyncio.to_thread(
                    lambda: next(answer.readline() for line in answer if line == b"event: dropped\n")
                )
            assert json.loads(said.removeprefix(b"data: "))["count"] > 1000

        async def nobody() -> bool:
            return watch.watchers == 0

        await eventually(nobody)


@pytest.mark.parametrize("count", [1, 5])
async def test_a_mirror_that_stops_waits_for_no_watcher(count: int, tmp_path: Path) -> None:
    """However long replies may take."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(SOON_S):
        async with fronted(tmp_path, server__shutdown=60) as at:
            answers = [await session.get(at.client.url(PATH)) for _ in range(count)]
        for answer in answers:
            answer.close()
