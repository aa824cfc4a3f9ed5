"""``mirror users``, ``mirror backends`` and ``mirror bench dispatch``, and the routes below them."""

import json
from pathlib import Path

import pytest

from tests.behind import asked, fronted
from tests.process import Ended, mirror
from tests.test_turns import many, post


async def command(url: str, *arguments: str) -> Ended:
    """Run a command on a running mirror, as its own machine's user."""
    return await mirror(*arguments, "--server", url)


async def bench(users: int, requests: int, greedy: int, *others: str) -> Ended:
    """Run the stress command."""
    counts = ("--users", str(users), "--requests", str(requests), "--greedy", str(greedy))
    return await mirror("bench", "dispatch", *counts, *others)


async def test_users_are_listed_blocked_and_weighed(tmp_path: Path) -> None:
    """By whom administers it, without a restart."""
    async with fronted(tmp_path) as at:
        url = at.mirror.url
        await post(at, "ann")
        listed = await command(url, "users", "list")
        assert (listed.code, listed.out.splitlines()[1].split()[:5]) == (0, ["ann", "0", "0", "1", "4"])
        assert (await command(url, "users", "block", "ann")).out == "ann is blocked\n"
        assert (await post(at, "ann"))[0] == 403
        assert "blocked" in (await command(url, "users", "list")).out
        assert (await command(url, "users", "unblock", "ann")).out == "ann is served again\n"
        assert (await post(at, "ann"))[0] == 200
        assert (await command(url, "users", "weigh", "ann", "2.5")).out == "ann has weight 2.5\n"
        said = json.loads((await command(url, "users", "list", "--json")).out)
        assert [one["weight"] for one in said["users"]] == [2.5]
        assert (await command(url, "users", "weigh", "ann", "0")).code == 2


async def test_backends_are_listed_and_drained(tmp_path: Path) -> None:
    """Before one is switched off."""
    async with many(tmp_path, 2) as them:
        url, first = them.at.mirror.url, next(iter(them.at.mirror.parts.pool)).id
        listed = await command(url, "backends", "list")
        assert [line.split()[1:4] for line in listed.out.splitlines()[1:]] == [["online", "0/1", "1"]] * 2
        assert (await command(url, "backends", "drain", first)).out == f"{first} gets nothing new\n"
        assert "draining" in (await command(url, "backends", "list")).out
        for _ in range(3):
            await post(them.at)
        assert them.served() == [0, 3]
        assert (await command(url, "backends", "enable", first)).out == f"{first} gets work again\n"
        unknown = await command(url, "backends", "drain", "nobody")
        assert (unknown.code, "there is no such Ollama" in unknown.err) == (1, True)


async def test_without_a_mirror_that_serves_there_are_no_turns(tmp_path: Path) -> None:
    """The command says what to do."""
    ended = await mirror("users", "list", "--store", str(tmp_path / "store"))
    assert (ended.code, "mirror serve starts one" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("block", {}),
        ("block", {"user": ""}),
        ("weigh", {"user": "ann"}),
        ("weigh", {"user": "ann", "weight": 0}),
        ("weigh", {"user": "ann", "weight": True}),
        ("weigh", {"user": "ann", "weight": 1e300}),
    ],
)
async def test_a_bad_order_is_a_problem(action: str, body: dict[str, object], tmp_path: Path) -> None:
    """And changes nothing."""
    async with fronted(tmp_path) as at:
        status, said = await asked(at.client, f"/mirror/v1/turns/{action}", body)
        assert (status, "accepted" in json.dumps(said)) == (400, True)
        assert at.mirror.parts.turns.users() == []


async def test_the_stress_command_counts_what_came_of_each_request(tmp_path: Path) -> None:
    """A small one; its figures are for people, its counts are for everybody."""
    ended = await mirror(
        "bench", "dispatch", "--users", "3", "--requests", "6", "--greedy", "9", "--service", "1ms", "--json"
    )
    said = json.loads(ended.out)
    assert (ended.code, said["lost"], said["doubled"], said["refused"]) == (0, 0, 0, 0)
    assert {user: row[0] for user, row in said["waits"].items()} == {
        "greedy": 9,
        "user-001": 2,
        "user-002": 2,
        "user-003": 2,
    }
    async with fronted(tmp_path) as at:
        other = await mirror(
            "bench",
            "dispatch",
            "--users",
            "2",
            "--requests",
            "2",
            "--greedy",
            "2",
            "--url",
            at.mirror.url,
            "--model",
            "m",
        )
        assert (other.code, "Jain's index over 3 shares" in other.out) == (0, True)
        assert len(at.ollama.troubles.of("/api/generate")) == 6
