"""What the terminal view reads, and how it says it: plain functions."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mirror.client.events import parsed
from mirror.tui.fitting import GAP, Column, bar, fitted, widths
from mirror.tui.news import changes, sentence
from mirror.tui.reading import Backend, Fill, Job, Reading, User, read
from mirror.tui.speeds import Speeds
from mirror.wording import lasting, when

DIGEST = "sha256:" + "ab" * 32
TURNS = {
    "waiting": 2,
    "users": [
        {"user": "ann", "waiting": 2, "running": 1, "taken": 7, "cost": 12.5, "weight": 2.0, "blocked": False},
        {"user": "bob\x1b[2J", "blocked": True},
    ],
    "backends": [
        {"id": "gpu1:11434", "state": "online", "active": 1, "slots": 2, "loaded": ["library/m:latest"], "cpu": 0.5}
    ],
}
QUEUE = {
    "jobs": [{"id": "1", "name": "m:latest", "state": "downloading", "requesters": ["ann"], "size": 10, "done": 4}],
    "paused": False,
    "open": False,
    "opens_at": None,
}
STATS = {"hits": 3, "bytes_saved": 9, "fills": [{"digest": DIGEST, "size": 100, "completed": 40, "readers": 2}]}
STORE = {"directory": "/srv/models", "models": 2, "size": 50, "max_size": 200, "damaged_models": ["m:latest"]}
COLUMNS = (Column("A", 4, 9), Column("B", 3, rank=1), Column("C", 5, 20, rank=2))

anything: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)
row = st.dictionaries(
    st.sampled_from(["user", "id", "name", "cost", "loaded", "cpu", "digest", "size", "done"]), anything
)
said = anything | st.lists(anything | row, max_size=2)
views = st.dictionaries(st.sampled_from([*TURNS, *QUEUE, *STATS, *STORE, "closes_at"]), said)


def test_answers_become_rows() -> None:
    """Each with what is shown of it; what could move a cursor is gone."""
    reading = read(TURNS, QUEUE, STATS, STORE)
    assert reading.users[0] == User("ann", 2, 1, 7, 12.5, 2.0, blocked=False)
    assert (reading.users[1].name, reading.users[1].blocked, reading.users[1].weight) == ("bob?[2J", True, 1.0)
    assert reading.backends == (Backend("gpu1:11434", "online", 1, 2, 0, ("library/m:latest",), 0.5, ""),)
    assert reading.fills == (Fill(DIGEST, 100, 40, 2),)
    assert reading.jobs == (Job("1", "m:latest", "downloading", who=("ann",), size=10, done=4),)
    assert reading.store is not None
    assert (reading.store.limit, reading.store.damaged, reading.traffic.saved) == (200, 1, 9)
    assert "no window ever opens" in reading.window


@given(views)
def test_no_answer_of_any_form_breaks_the_view(view: Any) -> None:
    """Another version of the mirror may say what it likes, in whichever answer."""
    assert isinstance(read(view, view, view, view), Reading)


def test_a_fill_has_a_rate_from_its_second_look_on() -> None:
    """Smoothed, and anew where it began again."""
    speeds, fill = Speeds(), Fill(DIGEST, 1000, 100)
    assert speeds.rated([fill], 10.0)[0].rate is None
    later = speeds.rated([replace(fill, here=300)], 12.0)[0]
    assert (later.rate, later.left_s, later.short) == (100.0, 7.0, "abababababab")
    assert speeds.rated([replace(fill, here=300)], 13.0)[0].rate == pytest.approx(60.0)
    assert speeds.rated([replace(fill, here=0)], 14.0)[0].rate is None
    assert speeds.rated([replace(fill, here=9)], 14.0)[0].left_s is None
    assert speeds.rated([], 15.0) == ()


@given(st.integers(0, 60))
def test_columns_that_do_not_fit_go_by_their_rank(room: int) -> None:
    """What is left fits, or is what stays in any room."""
    found = widths(COLUMNS, room)
    shown = [one for one in found if one]
    assert sum(shown) + GAP * (len(shown) - 1) <= max(room, 4)
    assert [bool(one) for one in found] == [True, room >= 9, room >= 16]
    assert all(
        one in (0, *range(column.least, max(column.least, column.most) + 1))
        for one, column in zip(found, COLUMNS, strict=True)
    )


@given(st.text(max_size=12), st.integers(0, 15), st.booleans())
def test_a_cell_is_as_wide_as_its_column(text: str, width: int, right: bool) -> None:
    """Also where its letters take two cells each."""
    assert cell_len(fitted(text, width, right=right)) == width


def test_bars_are_full_at_the_end_only() -> None:
    """In eighths of a cell."""
    assert (bar(0, 4), bar(1, 4), bar(2, 4), bar(0.5, 4)) == ("░░░░", "████", "████", "██░░")
    assert bar(0.5 + 1 / 32, 4) == "██▏░"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"kind": "fill_started", "digest": DIGEST, "size": 4_100_000_000}, "abababababab begins to come in, 4.1 GB"),
        (
            {"kind": "fill_ended", "digest": DIGEST, "size": 5_000_000, "duration_s": 61.2, "error": None},
            "abababababab is here: 5.0 MB in 1 min 1 s",
        ),
        ({"kind": "fill_ended", "digest": DIGEST, "error": "gone"}, "abababababab did not come: gone"),
        (
            {"kind": "pull_ended", "name": "m:latest", "outcome": "failed", "error": "no"},
            "the pull of m:latest is failed: no",
        ),
        (
            {"kind": "answered", "user": "ann", "model": "m", "backend": "gpu1", "made": 4, "ran_s": 2.2},
            "ann was answered by gpu1: m, 4 tokens in 2 s",
        ),
        ({"kind": "model_stored", "name": "m:latest", "size": 10}, "m:latest is in the store, 10 B"),
        (
            {"kind": "model_removed", "name": "m:latest", "freed": 10, "why": "asked"},
            "m:latest was removed, 10 B freed: asked",
        ),
        ({"kind": "state", "id": "gpu1", "state": "offline"}, "gpu1 is offline"),
        ({"kind": "blob_damaged", "digest": "sha256:1", "models": []}, "blob damaged sha256:1"),
        ({"kind": "of_tomorrow"}, "of tomorrow"),
        ({"kind": "x", "name": "a\nb"}, "x a?b"),
        ({"kind": "progress", "fills": []}, None),
        ({}, None),
    ],
)
def test_news_are_one_sentence(said: dict[str, Any], text: str | None) -> None:
    """What is not known is said in the words that it came with; counts are in the panes anyway."""
    assert sentence(said) == text


def test_what_is_new_between_two_looks() -> None:
    """For mirrors that do not tell."""
    before = read(TURNS, QUEUE, STATS, None)
    assert list(changes(before, before)) == []
    users = tuple(replace(one, blocked=not one.blocked) for one in before.users)
    backends = (replace(before.backends[0], state="draining"),)
    now = replace(before, users=users, backends=backends, fills=(Fill("sha256:cd", 7),), jobs=(Job("2", "n:latest"),))
    assert list(changes(before, now)) == [
        "abababababab comes in no more",
        "cd begins to come in, 7 B",
        "the pull of m:latest is over",
        "n:latest is queued",
        "ann is blocked",
        "bob?[2J is served again",
        "gpu1:11434 is draining",
    ]
    moved = replace(before, jobs=(replace(before.jobs[0], state="delivering"),))
    assert list(changes(before, moved)) == ["m:latest is delivering"]


async def test_server_sent_events_are_read_as_the_standard_says() -> None:
    """Comments and what is no object are passed over; data of several lines is one."""

    async def lines() -> AsyncIterator[bytes]:
        for line in (
            b"retry: 3000\n", b"\n", b": still here\n", b"\n",
            b"event: fills\r\n", b'data: {"a":\n', b"data: 1}\n", b"id: 7\n", b"\n",
            b"data: nonsense\n", b"\n", b"data: [1]\n", b"\n", b'data:{"b": 2}\n', b"\n", b"data: {}\n",
        ):  # fmt: skip
            yield line

    assert [one async for one in parsed(lines())] == [("fills", {"a": 1}), ("message", {"b": 2})]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (700, "11 min"), (3660, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_how_long_something_takes(seconds: float, said: str) -> None:
    """In two units at most."""
    assert lasting(seconds) == said


def test_when_the_window_opens() -> None:
    """Counted from an instant that is given."""
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    view = {"paused": False, "open": False, "opens_at": "2026-01-02T13:05:00+00:00"}
    assert when(view, now).endswith(", in 1 d 1 h 5 min")
    assert when({**view, "open": True, "closes_at": view["opens_at"]}, now).startswith("the window is open, until ")
    assert "paused" in when({**view, "paused": True}, now)
