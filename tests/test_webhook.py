"""The webhook: what it is told, how that is signed, and that a receiver in trouble holds nobody up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from mirror.config import Settings, load, rows
from mirror.errors import SettingsError
from mirror.events import BytesFetched, Events, PullEnded
from mirror.pulls import Webhook
from mirror.values import Digest, ModelName
from tests.fakes.registry import running_fake_registry
from tests.receiving import Receiver, is_ours, receiving
from tests.support import SOON_S, add_blob, mirrored

SECRET = "a secret"
NOW = 1_795_000_000.5
BEGUN = datetime(2026, 11, 21, 22, 0, 0, 5, tzinfo=UTC)
DONE = datetime(2026, 11, 21, 22, 5, tzinfo=UTC)


def end(number: int = 0, outcome: str = "completed", error: str | None = None) -> PullEnded:
    """The end of one pull of many."""
    name = ModelName.parse(f"m{number}")
    return PullEnded(f"id{number}", name, outcome, 1000, ("ann", "10.0.0.7"), 2, error, BEGUN, DONE)


@asynccontextmanager
async def telling(url: str, secret: str | None = SECRET, **changes: Any) -> AsyncIterator[Events]:
    """A webhook at work, with short waits; publish what it is to tell."""
    events, said = Events(), {"waits_s": (0.001, 0.002, 0.004), "now": lambda: NOW, **changes}
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Webhook(url, secret, events, **said).run())
        await asyncio.sleep(0)  # its first step listens
        try:
            yield events
        finally:
            task.cancel()


def names(receiver: Receiver) -> list[str]:
    """The models that were told of, in order."""
    return [post.view["name"] for post in receiver.posts]


async def test_what_is_told(tmp_path: Path) -> None:
    """Every field, in the shapes of the admin API."""
    async with receiving() as receiver, telling(f"{receiver.url}/pulls/?to=me") as events:
        events.publish(end(outcome="failed", error="nobody has it"))
        await receiver.until(lambda: len(receiver.posts) == 1)
    (post,) = receiver.posts

    assert post.path == "/pulls/?to=me"
    assert post.view == {
        "event": "pull.failed",
        "id": "id0",
        "name": "m0:latest",
        "size": 1000,
        "requesters": ["ann", "10.0.0.7"],
        "tries": 2,
        "error": "nobody has it",
        "created_at": "2026-11-21T22:00:00+00:00",
        "finished_at": "2026-11-21T22:05:00+00:00",
    }
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers["X-Mirror-Event"] == "pull.failed"


async def test_it_is_signed_with_the_secret_and_not_without_one() -> None:
    """Over the time and the bytes, so that neither can be changed, nor an old one sent again much later."""
    async with receiving() as receiver:
        for secret in (SECRET, None):
            async with telling(receiver.url, secret) as events:
                events.publish(end())
                await receiver.until(lambda: len(receiver.posts) == (1 if secret else 2))  # noqa: B023  # awaited at once
    signed, plain = receiver.posts

    assert is_ours(signed.headers, signed.body, SECRET, NOW)
    assert not is_ours(signed.headers, signed.body + b" ", SECRET, NOW)
    assert not is_ours(signed.headers, signed.body, "another", NOW)
    assert not is_ours(signed.headers, signed.body, SECRET, NOW + 3600)
    assert not {"X-Mirror-Timestamp", "X-Mirror-Signature"} & set(plain.headers)


async def test_the_documented_check_is_that_of_the_tests() -> None:
    """Who copies it from docs/pulls.md has one that works."""
    text = (Path(__file__).parent.parent / "docs" / "pulls.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)
    async with receiving() as receiver, telling(receiver.url) as events:
        events.publish(end())
        await receiver.until(lambda: len(receiver.posts) == 1)
    (post,) = receiver.posts

    assert found["is_ours"](post.headers, post.body, SECRET)
    assert not found["is_ours"](post.headers, post.body + b" ", SECRET)


@pytest.mark.parametrize("statuses", [(500, 404), (302, 302), (429, 503)])
async def test_what_was_not_taken_is_told_again(statuses: tuple[int, ...]) -> None:
    """After a refusal, and a redirect, which is not followed; under one id, so that it counts once."""
    async with receiving(*statuses) as receiver, telling(receiver.url) as events:
        events.publish(end(1))
        await receiver.until(lambda: len(receiver.posts) == 3)
        events.publish(end(2))
        await receiver.until(lambda: len(receiver.posts) == 4)

    assert names(receiver) == ["m1:latest"] * 3 + ["m2:latest"]
    assert {post.path for post in receiver.posts} == {"/"}
    first, second = (
        {post.headers["X-Mirror-Delivery"] for post in posts} for posts in (receiver.posts[:3], receiver.posts[3:])
    )
    assert (len(first), len(second), first & second) == (1, 1, set())


async def test_silence_is_no_answer() -> None:
    """It is told again after a while, under the same id."""
    with structlog.testing.capture_logs() as logs:
        async with receiving(0) as receiver, telling(receiver.url, timeout_s=0.05) as events:
            events.publish(end())
            await receiver.until(lambda: len(receiver.posts) >= 2)
    assert logs[0]["problem"] == "no answer in 0.05 s"
    assert len({post.headers["X-Mirror-Delivery"] for post in receiver.posts}) == 1


async def test_after_so_many_tries_it_is_given_up_and_said() -> None:
    """And the next is told; the log has no more of the URL than its host."""
    with structlog.testing.capture_logs() as logs:
        async with receiving(*[500] * 4) as receiver, telling(f"{receiver.url}/hidden?key=hidden") as events:
            events.publish(end(1))
            events.publish(end(2))
            await receiver.until(lambda: len(receiver.posts) == 5)
    (given_up,) = [line for line in logs if line["log_level"] == "warning"]

    assert names(receiver) == ["m1:latest"] * 4 + ["m2:latest"]
    assert (given_up["pull"], given_up["problem"]) == ("m1:latest", "it answered 500")
    assert "hidden" not in str(logs)


async def test_nobody_there_is_a_try_like_others() -> None:
    """A refused connection ends nothing but that try."""
    async with receiving() as receiver:
        url = receiver.url
    with structlog.testing.capture_logs() as logs:
        async with telling(url) as events, asyncio.timeout(SOON_S):
            events.publish(end())
            while not any(line["log_level"] == "warning" for line in logs):  # noqa: ASYNC110  # a log tells nobody
                await asyncio.sleep(0)


async def test_the_oldest_go_where_too_many_wait() -> None:
    """A receiver that is silent costs neither memory nor anybody's time; what was dropped is said."""
    with structlog.testing.capture_logs() as logs:
        async with receiving(0) as receiver, telling(receiver.url, most=2) as events:
            events.publish(end(0))
            await receiver.until(lambda: len(receiver.posts) == 1)
            for number in range(1, 6):
                events.publish(end(number))
                events.publish(BytesFetched(Digest.of(b""), 1))
            receiver.released.set()
            await receiver.until(lambda: len(receiver.posts) == 3)

    assert names(receiver) == ["m0:latest", "m4:latest", "m5:latest"]
    assert [line["dropped"] for line in logs if line["event"] == "ends of pulls not told"] == [3]


async def test_the_end_of_each_job_is_told_by_a_mirror(tmp_path: Path) -> None:
    """One that came, one that nobody has, one that is not allowed; one that was taken back is not."""
    async with receiving() as receiver, running_fake_registry() as fake:
        said = {
            "pulls__webhook": receiver.url,
            "pulls__webhook_secret": SECRET,
            "pulls__windows": [],
            "security__blocked_models": ["blocked"],
        }
        content, _ = add_blob(fake, 3000)
        async with mirrored(tmp_path, fake, **said) as (mirror, _):
            queue = mirror.parts.queue
            await queue.ask(ModelName.parse("taken-back"), "ann")
            await queue.cancel("taken-back:latest")
            for text in ("m", "gone", "blocked"):
                await queue.ask(ModelName.parse(text), "ann", at_once=True)
            await receiver.until(lambda: len(receiver.posts) == 3)
    told = {post.view["name"]: post.view for post in receiver.posts}

    assert {name: view["event"] for name, view in told.items()} == {
        "m:latest": "pull.completed",
        "gone:latest": "pull.failed",
        "blocked:latest": "pull.refused",
    }
    assert told["m:latest"]["size"] > len(content)
    assert told["m:latest"]["error"] is None
    assert "not found upstream" in told["gone:latest"]["error"]
    assert all("X-Mirror-Signature" in post.headers for post in receiver.posts)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.lan", "https://hooks.lan"),
        ("https://hooks.lan/", "https://hooks.lan/"),
        ("https://hooks.lan:8443/services/hidden", "https://hooks.lan:8443/***"),
        ("http://hooks.lan?key=hidden", "http://hooks.lan/***"),
    ],
)
def test_what_follows_the_host_is_not_shown(url: str, shown: str) -> None:
    """Chat services put their secret there."""
    loaded = load(None, {"OLLAMA_MIRROR_PULLS_WEBHOOK": url}, {})
    (row,) = [row for row in rows(loaded) if row.key == "pulls.webhook"]

    assert (loaded.settings.pulls.webhook, row.value_text) == (url, shown)
    assert "hidden" not in f"{loaded.settings!r}{loaded.settings.model_dump_json()}"


@pytest.mark.parametrize(
    "url", ["hidden", "ftp://hidden", "http://u:hidden@h/", "http://h/#hidden", "http://h/?a#hidden"]
)
def test_what_is_no_url_is_refused_unseen(url: str) -> None:
    """With the key, and without the value."""
    with pytest.raises(SettingsError, match=r"pulls\.webhook: must .*, not \*\*\*") as refused:
        load(None, {"OLLAMA_MIRROR_PULLS_WEBHOOK": url}, {})

    assert "hidden" not in str(refused.value)


def test_nothing_is_told_unless_asked() -> None:
    """The default."""
    assert Settings().pulls.webhook is None
