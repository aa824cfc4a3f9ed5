"""Who had how much of which model, by day: counted, kept, shown, forgotten."""

import csv
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from mirror.db import Tallies, open_database
from mirror.db.tallies import TalliesUnreadable
from mirror.events import Answered
from tests.access import Clock
from tests.behind import asked, fronted
from tests.process import mirror as command
from tests.test_turns import GENERATE

DAY_S = 86_400


def _answered(user: str, model: str = "m", *, made: int = 2, status: int = 200) -> Answered:
    return Answered(user, model, "here", 3, made, 0.0, 0.1, status)


async def test_answers_add_up_over_flushes_and_lives(tmp_path: Path) -> None:
    """Failed ones count for nothing; what cannot be written waits."""
    engine, clock = await open_database(None, tmp_path / "mirror.db"), Clock()
    try:
        for _ in range(2):
            one = Tallies(engine, clock.instant)
            for event in (_answered("ann"), _answered("ann"), _answered("bob", made=5), _answered("bob", status=500)):
                one.hear(event)
            await one.flush()
        found = await Tallies(engine, clock.instant).read(1)
        assert [(row.user, row.answers, row.prompt, row.made) for row in found] == [
            ("bob", 2, 6, 10),
            ("ann", 4, 12, 8),
        ]
        assert found[0].day == datetime.fromtimestamp(clock.at, UTC).date()
    finally:
        await engine.dispose()


async def test_a_database_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    """It is tried again; to read it meanwhile is an error that says so."""
    engine = await open_database(None, tmp_path / "mirror.db")
    try:
        one = Tallies(engine, Clock().instant)
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE tallies RENAME TO away"))
        one.hear(_answered("ann"))
        await one.flush()
        one.hear(_answered("ann"))
        with pytest.raises(TalliesUnreadable):
            await one.read(1)
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO tallies"))
        assert [row.answers for row in await one.read(1)] == [2]
    finally:
        await engine.dispose()


async def test_days_are_read_and_forgotten_from_the_latest_on(tmp_path: Path) -> None:
    """Today is the first of them."""
    engine, clock = await open_database(None, tmp_path / "mirror.db"), Clock()
    try:
        one, days = Tallies(engine, clock.instant), list[date]()
        for _ in range(4):
            one.hear(_answered("ann"))
            days.append(clock.instant().date())
            await one.flush()
            clock.at += DAY_S
        clock.at -= DAY_S
        assert [row.day for row in await one.read(2)] == [days[3], days[2]]
        await one.forget(2)
        assert [row.day for row in await one.read(99)] == [days[3], days[2], days[1]]
    finally:
        await engine.dispose()


async def test_users_without_number_are_counted_together(tmp_path: Path) -> None:
    """What waits to be written has a bound."""
    engine = await open_database(None, tmp_path / "mirror.db")
    try:
        one = Tallies(engine, Clock().instant)
        for number in range(10_050):
            one.hear(_answered(f"user-{number}"))
        found = await one.read(1)
        assert len(found) == 10_001
        assert {row.user: row.answers for row in found}["others"] == 50
    finally:
        await engine.dispose()


async def test_the_command_prints_tables_json_and_csv(tmp_path: Path) -> None:
    """A user whose name is a formula is a text in a spreadsheet."""
    async with fronted(tmp_path) as at:
        for user in ("ann", "=1+1"):
            assert (await asked(at.client, "/api/generate", GENERATE, X_User_ID=user))[0] == 200
        url = str(at.client.url("/"))
        table = await command("users", "usage", "--server", url)
        assert table.code == 0
        assert "ann" in table.out
        rows = list(csv.DictReader((await command("users", "usage", "--server", url, "--csv")).out.splitlines()))
        assert {row["user"] for row in rows} == {"ann", "'=1+1"}
        assert all(row["model"] == "m" and int(row["made"]) > 0 for row in rows)
        said = json.loads((await command("users", "usage", "--server", url, "--json")).out)
        assert {row["user"] for row in said["usage"]} == {"ann", "=1+1"}
        assert (await at.client.get("/mirror/v1/usage?days=0")).status == 400
        assert (await at.client.get("/mirror/v1/usage?days=" + "9" * 30)).status == 400
