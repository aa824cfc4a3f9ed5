"""The terminal view, driven by Textual's Pilot, on a real mirror and on one that tells what the test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mirror.access import Keyring, Scope
from mirror.client import AdminClient
from mirror.pulls import State
from mirror.tui.app import Top
from mirror.tui.dialogs import Help
from mirror.tui.source import Source
from tests.behind import Fronted, closed, fronted
from tests.fakes.mirror import running_fake_mirror
from tests.process import mirror, serving
from tests.support import SOON_S, add_blob, blob_path, eventually
from tests.test_turns import post, waiting

USERS = "#users"
FILL = {"digest": "sha256:" + "ab" * 32, "size": 4000, "completed": 1000, "readers": 2}


@dataclass(frozen=True)
class Seen:
    """A view on a terminal that nobody sees."""

    app: Top
    pilot: Pilot[bool]

    def text(self, where: str = "") -> str:
        """What stands in the widgets that a selector means, in all where none is given."""
        shown = self.app.screen_stack[0].query(where or "#title, Table, #store, #said")
        return "\n".join(str(one.render()) for one in shown)

    async def until(self, text: str, where: str = "") -> None:
        """Wait until it says so."""
        await self._until(lambda: text in self.text(where), text)

    async def gone(self, text: str, where: str = "") -> None:
        """Wait until it does not say so."""
        await self._until(lambda: text not in self.text(where), f"no {text}")

    async def selected(self, pane: str, row: str) -> None:
        """Wait until the cursor is there."""
        await self._until(lambda: str(getattr(self.app.query_one(pane), "selected", "")) == row, row)

    async def _until(self, holds: Callable[[], bool], wanted: str) -> None:
        async def so() -> bool:
            await self.pilot.pause()
            return holds()

        try:
            await eventually(so)
        except TimeoutError:
            pytest.fail(f"waited for {wanted!r}; it shows\n{self.text()}")

    async def left(self) -> bool | None:
        """Wait until the view has ended; returns whether its mirror is to stop."""

        async def ended() -> bool:
            return not self.app.is_running

        await eventually(ended)
        return self.app.return_value


@asynccontextmanager
async def viewed(
    url: str, key: str | None = None, *, stopping: asyncio.Event | None = None, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[Seen]:
    """Look at the mirror at ``url``."""
    async with AdminClient(url, key) as client:
        app = Top(Source(client), stopping)
        async with app.run_test(size=size) as pilot:
            yield Seen(app, pilot)


@asynccontextmanager
async def busy(folder: Path, **changes: Any) -> AsyncIterator[Fronted]:
    """A mirror with a user who runs and waits, one who waits, a blob that comes in, and two models queued."""
    async with fronted(folder, **closed(), **changes) as at:
        _, digest = add_blob(at.registry, 200_000)
        at.registry.hold(digest, 100_000)
        at.ollama.pace.hold()
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[Any]] = [group.create_task(at.client.get(blob_path(digest)))]
            for number, user in enumerate(("ann", "ann", "bob")):
                tasks.append(group.create_task(post(at, user)))
                await waiting(at, number)
            for name in ("llama3.2", "qwen3:8b"):
                await at.json("/mirror/v1/queue", {"name": name})
            yield at
            for one in tasks:
                one.cancel()


async def test_everything_is_seen_at_once_in_a_small_terminal(tmp_path: Path) -> None:
    """Users with their queues, the Ollama, the fill, the queue of pulls and the store, in 80 by 24."""
    async with busy(tmp_path) as at, viewed(at.mirror.url) as seen:
        await seen.until("ann")
        rows = [line.split() for line in seen.text(USERS).splitlines()]
        assert rows[0][:4] == ["USERS", "WAITING", "RUNNING", "HAD"]
        assert sorted(row[:4] for row in rows[1:]) == [["ann", "1", "1", "1"], ["bob", "1", "0", "0"]]
        assert seen.text("#backends").splitlines()[1].split()[1:3] == ["unknown", "1/1"]
        await seen.until("50%", "#fills")
        assert [line.split()[0] for line in seen.text("#pulls").splitlines()[1:]] == ["llama3.2:latest", "qwen3:8b"]
        assert "2 waiting, 1 running, 2 queued" in seen.text("#title")
        assert str(tmp_path)[:20] in seen.text("#store")
        assert "0 models" in seen.text("#store")
        for pane in seen.app.screen.query("#title, Table, #store, #said"):
            lines = str(pane.render()).splitlines()
            assert all(len(line) <= 80 for line in lines)
            assert len(lines) <= pane.size.height


async def test_users_are_blocked_and_unblocked(tmp_path: Path) -> None:
    """After a question; anything but y leaves it."""
    async with busy(tmp_path) as at, viewed(at.mirror.url) as seen:
        turns = at.mirror.parts.turns
        await seen.until("bob", USERS)
        await seen.pilot.press("j")
        await seen.selected(USERS, "bob")
        await seen.pilot.press("b", "n", "b", "escape")
        assert not any(one.blocked for one in turns.users())
        await seen.pilot.press("b", "y")
        await seen.until("bob is blocked", "#said")
        await seen.until("blocked", USERS)
        assert {one.user: one.blocked for one in turns.users()} == {"ann": False, "bob": True}
        await seen.pilot.press("u")
        await seen.until("bob is served again")
        await seen.gone("blocked", USERS)


async def test_nodes_are_drained_and_models_fetched_now(tmp_path: Path) -> None:
    """Each with one key in its pane; elsewhere the key says where it belongs."""
    async with busy(tmp_path) as at, viewed(at.mirror.url) as seen:
        await seen.until("qwen3", "#pulls")
        await seen.pilot.press("d")
        await seen.until("that key is for the backends", "#said")
        await seen.pilot.press("tab", "d", "y")
        await seen.until("draining", "#backends")
        assert next(iter(at.mirror.parts.pool)).draining
        await seen.pilot.press("e")
        await seen.until("unknown", "#backends")
        await seen.pilot.press("tab", "tab", "down", "n")
        await seen.until("qwen3:8b waits for no window", "#said")

        async def hurried() -> bool:
            return any(
                job.name.model == "qwen3" and job.state is State.FAILED
                for job in await at.mirror.parts.queue.history(9)
            )

        await eventually(hurried)


async def test_keys_move_the_cursor_and_the_focus() -> None:
    """j, k, arrows, g, G, pages; Tab and Shift+Tab; the mouse. When rows move the cursor goes with its own."""
    async with running_fake_mirror() as fake, viewed(fake.url) as seen:
        names = [f"user{number}" for number in range(9)]
        fake.says["/mirror/v1/turns"] = {"users": [{"user": name} for name in names]}
        await seen.until("USERS 1-4/9", USERS)
        for keys, row in (
            (["j"], 1), (["down", "j"], 3), (["j"], 4), (["k"], 3), (["up"], 2), (["G"], 8), (["g"], 0),
            (["pagedown"], 4), (["end"], 8), (["home"], 0), (["pageup"], 0),
        ):  # fmt: skip
            await seen.pilot.press(*keys)
            await seen.selected(USERS, names[row])
            assert names[row] in seen.text(USERS)
        await seen.pilot.click(USERS, offset=(3, 3))
        await seen.selected(USERS, names[2])
        fake.says["/mirror/v1/turns"] = {"users": [{"user": name} for name in reversed(names)]}
        await seen.until("user5")
        await seen.selected(USERS, names[2])
        await seen.pilot.press("g")
        fake.says["/mirror/v1/turns"] = {"users": [{"user": name} for name in names]}
        await seen.selected(USERS, names[0])
        for pane in ("backends", "fills", "pulls", "users"):
            await seen.pilot.press("tab")
            assert seen.app.query_one(f"#{pane}").has_focus
        await seen.pilot.press("shift+tab")
        assert seen.app.query_one("#pulls").has_focus


async def test_help_opens_and_closes_and_escape_leaves() -> None:
    """Escape closes what lies on top first."""
    async with running_fake_mirror() as fake, viewed(fake.url) as seen:
        for key in ("h", "question_mark"):
            await seen.pilot.press(key)
            assert isinstance(seen.app.screen, Help)
            assert "leave; the mirror goes on" in str(seen.app.screen.query_one("#keys").render())
            await seen.pilot.press("escape")
            assert not isinstance(seen.app.screen, Help)
        await seen.pilot.press("escape")
        assert await seen.left() is False


@pytest.mark.parametrize("keys", [["q"], ["h", "q"], ["ctrl+c"], ["ctrl+q"]])
async def test_leaving_asks_nothing_of_the_mirror(keys: list[str]) -> None:
    """It was looked at, and nothing else."""
    async with running_fake_mirror() as fake:
        async with viewed(fake.url) as seen:
            await seen.until("waiting")
            await seen.pilot.press(*keys)
            assert await seen.left() is False
        assert {one.partition(" ")[0] for one in fake.asked} == {"GET"}


async def test_a_mirror_that_goes_away_is_waited_for() -> None:
    """What was seen last stays, said to be old; what is new is seen by itself."""
    async with running_fake_mirror() as fake, viewed(fake.url) as seen:
        fake.says["/mirror/v1/turns"] = {"waiting": 1, "users": [{"user": "ann", "waiting": 1}]}
        await seen.until("ann", USERS)
        await fake.down()
        await seen.until(f"no answer from {fake.url}: Cannot connect", "#said")
        assert seen.text("#said").endswith("; trying again")
        assert "ann" in seen.text(USERS)
        assert seen.app.query_one(USERS).has_class("-old")
        await seen.pilot.press("u")
        assert "ann" in seen.text(USERS)
        fake.says["/mirror/v1/turns"] = {"users": [{"user": "bob"}]}
        await fake.up()
        await seen.until("bob", USERS)
        await seen.gone("no answer", "#said")
        assert not seen.app.query_one(USERS).has_class("-old")


async def test_who_may_not_change_anything_may_look(tmp_path: Path) -> None:
    """The mirror's own sentence says what it takes."""
    _, admin = Keyring(tmp_path / "state").add("admin", [Scope.ADMIN])
    async with busy(tmp_path) as at:
        async with viewed(at.mirror.url) as seen:
            await seen.until("bob", USERS)
            await seen.pilot.press("b", "y")
            await seen.until("read-only: this needs a key that is good for admin", "#said")
            assert not any(one.blocked for one in at.mirror.parts.turns.users())
        async with viewed(at.mirror.url, admin) as seen:
            await seen.until("bob", USERS)
            await seen.pilot.press("b", "y")
            await seen.until("is blocked", "#said")


async def test_a_mirror_that_shows_nothing_without_a_key_says_so(tmp_path: Path) -> None:
    """And is asked again, for keys come and go."""
    async with fronted(tmp_path, security__api_key="word") as at, viewed(at.mirror.url) as seen:
        await seen.until(f"refused by {at.mirror.url}: this needs a key", "#said")


async def test_a_mirror_that_counts_requests_is_asked_less_often() -> None:
    """Its sentence is shown, and it is not the view that keeps others out."""
    async with running_fake_mirror() as fake:
        fake.refuses["/mirror/v1/turns"] = (429, "too many requests")
        async with viewed(fake.url) as seen:
            await seen.until("too many requests", "#said")
            assert seen.app.each_s == 2.0
            fake.refuses.clear()
            await seen.gone("too many requests", "#said")
            assert seen.app.each_s == 2.0


async def test_news_are_told_in_the_last_line() -> None:
    """As they come; the answer to a key is not swept away at once."""
    async with running_fake_mirror() as fake, viewed(fake.url) as seen:
        fake.says["/mirror/v1/turns"] = {"users": [{"user": "ann"}]}
        fake.tell("fills", kind="fill_started", digest=FILL["digest"], size=4000, at="2026-01-01T00:00:00+00:00")
        await seen.until("abababababab begins to come in, 4.0 kB", "#said")
        fake.tell("fills", kind="progress", fills=[FILL])
        fake.tell("pulls", kind="pull_ended", name="m:latest", outcome="completed")
        await seen.until("the pull of m:latest is completed", "#said")
        await seen.until("ann", USERS)
        fake.refuses["/mirror/v1/turns/unblock"] = (404, "no such user")
        await seen.pilot.press("u")
        await seen.until("no such user", "#said")
        fake.tell("nodes", kind="state", id="gpu1", state="online")
        fake.says["/mirror/v1/turns"] = {"users": [{"user": "bob"}]}
        await seen.until("bob", USERS)
        assert "no such user" in seen.text("#said")


async def test_fills_are_taken_from_the_news() -> None:
    """The statistics list every model, which is work for a mirror that has many: they are asked for seldom then."""
    async with running_fake_mirror() as fake, viewed(fake.url) as seen:
        for here in (1000, 2000, 3000):
            fake.tell("fills", kind="progress", fills=[{**FILL, "completed": here}])
            await seen.until(f"{here // 40}%", "#fills")
        asked = fake.asked.count("GET /mirror/stats")
        fake.says["/mirror/v1/turns"] = {"users": [{"user": "ann"}]}
        await seen.until("ann", USERS)
        fake.says["/mirror/v1/turns"] = {"users": [{"user": "bob"}]}
        await seen.until("bob", USERS)
        assert fake.asked.count("GET /mirror/stats") <= asked + 1


async def test_of_a_mirror_that_tells_no_news_the_changes_are_said() -> None:
    """An older one, or one that has some of its answers switched off."""
    async with running_fake_mirror() as fake:
        fake.tells = False
        del fake.says["/mirror/v1/store"]
        async with viewed(fake.url) as seen:
            await seen.until("nothing is known of it", "#store")
            fake.says["/mirror/stats"] = {"fills": [FILL]}
            await seen.until("abababababab begins to come in", "#said")
            fake.says["/mirror/stats"] = {"fills": [{**FILL, "completed": 3000}]}
            await seen.until("kB/s", "#fills")


async def test_a_large_terminal_shows_more(tmp_path: Path) -> None:
    """All columns, and more rows; a tiny one still answers."""
    async with busy(tmp_path) as at:
        async with viewed(at.mirror.url, size=(120, 40)) as seen:
            await seen.until("50%", "#fills")
            assert "CONNECTIONS" in seen.text("#fills")
            assert seen.app.query_one(USERS).size.height > 5
        async with viewed(at.mirror.url, size=(24, 8)) as seen:
            await seen.until("USERS", USERS)
            await seen.pilot.press("h", "escape", "q")
            assert await seen.left() is False


async def test_ones_own_mirror_is_stopped_after_a_question_only() -> None:
    """The view of ``mirror serve --tui``: n and Escape go on, y and Ctrl-C stop it, and a signal ends the view."""
    async with running_fake_mirror() as fake:
        for keys in (["q", "n", "q", "escape", "q", "y"], ["h", "q", "y"], ["ctrl+c"]):
            async with viewed(fake.url, stopping=asyncio.Event()) as seen:
                await seen.pilot.press(*keys)
                assert await seen.left() is True
        stopping = asyncio.Event()
        async with viewed(fake.url, stopping=stopping) as seen, asyncio.timeout(SOON_S):
            stopping.set()
            assert await seen.left() is True


async def test_it_needs_a_terminal_and_a_mirror(tmp_path: Path) -> None:
    """One line each."""
    for command in (["top", "--server", "http://127.0.0.1:9"], ["serve", "--tui", "--store", str(tmp_path / "s")]):
        ended = await mirror(*command)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == (
            "mirror: the terminal view needs a terminal: input, output and errors must not go elsewhere\n"
        )
    assert list(tmp_path.iterdir()) == []


async def test_a_mirror_serves_without_its_view_unless_asked(tmp_path: Path) -> None:
    """``--no-tui`` is what it does anyway, for those who write it."""
    async with serving(tmp_path / "store", "http://127.0.0.1:9", "--no-tui") as (url, _):
        assert "serves at" in (await mirror("status", "--store", str(tmp_path / "store"))).out
        assert url.startswith("http://127.0.0.1:")


async def test_without_its_package_it_says_what_to_install(tmp_path: Path) -> None:
    """A folder in front of the packages stands in for a machine that has none."""
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('No module named textual', name='textual')\n")
    for command in (["top"], ["serve", "--tui"]):
        ended = await mirror(*command, "--store", str(tmp_path / "s"), env={"PYTHONPATH": str(tmp_path)})
        assert (ended.code, ended.err) == (
            1,
            "mirror: the terminal view needs a package more: pip install 'ollama-mirror[tui]'\n",
        )
