"""The plan is pure: facts in, what goes and why out."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.events import Reason
from mirror.keep import Facts, Kind, Loose, ModelFacts, Plan, Rules, plan
from mirror.values import Digest, ModelName

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MB = 1_000_000


def digest(number: int) -> Digest:
    """A blob."""
    return Digest(f"{number:064x}")


def model(name: str, *blobs: int, days: float = 0, kept_for: str | None = None) -> ModelFacts:
    """A model last used so many days ago."""
    used_at = NOW - timedelta(days=days)
    return ModelFacts(ModelName.parse(name), frozenset(map(digest, blobs)), used_at, kept_for)


def facts(models: Iterable[ModelFacts], size: int = 100 * MB, **more: object) -> Facts:
    """A store in which every blob is of one size."""
    models = list(models)
    sizes = {blob: size for one in models for blob in one.blobs}
    return replace(Facts(models, sizes, now=NOW), **more)  # type: ignore[arg-type]  # whatever the test says


def gone(made: Plan) -> list[str]:
    """What goes, in order."""
    return [row.what for row in made.rows]


def loose(number: int, hours: float = 48, kind: Kind = Kind.BLOB) -> Loose:
    """Something of 5 MB that belongs to no model."""
    return Loose(kind, f"loose {number}", 5 * MB, NOW - timedelta(hours=hours), digest(number))


def test_without_limits_nothing_goes() -> None:
    """Whoever sets no limit wants to keep everything, however old."""
    made = plan(facts([model("a", 1, days=900), model("b", 2)]), Rules())
    assert (made.rows, made.size_before, made.size_after, made.short) == ((), 200 * MB, 200 * MB, None)


def test_the_least_recently_used_goes_first_and_down_to_the_low_mark() -> None:
    """Hysteresis: once something must go, enough goes that the next pull need not drop again."""
    models = [model(f"m{days}", days, days=days) for days in (3, 1, 5, 2, 4)]
    made = plan(facts(models), Rules(size=450 * MB, low_size=300 * MB))
    assert gone(made) == ["m5:latest", "m4:latest"]
    assert {(row.reason, row.frees) for row in made.rows} == {(Reason.SIZE, 100 * MB)}
    assert made.size_after == 300 * MB
    assert plan(facts(models), Rules(size=500 * MB, low_size=300 * MB)).rows == (), "at the mark it is not over it"


def test_what_is_promised_counts_as_if_it_were_there() -> None:
    """Room is made before the first byte of a fill."""
    made = plan(
        facts([model("a", 1, days=2), model("b", 2)], promised=60 * MB), Rules(size=250 * MB, low_size=225 * MB)
    )
    assert gone(made) == ["a:latest"]
    assert made.size_after == 160 * MB


def test_a_blob_that_another_model_needs_stays() -> None:
    """Dropping two tags of one model frees it once; a base that a third needs frees nothing."""
    models = [model("a", 1, 2, days=3), model("b", 1, days=2), model("c", 2)]
    made = plan(facts(models), Rules(size=150 * MB, low_size=150 * MB))
    assert [(row.what, row.frees) for row in made.rows] == [("a:latest", 0), ("b:latest", 100 * MB)]
    assert made.size_after == 100 * MB


def test_a_model_that_would_free_nothing_is_spared() -> None:
    """All its blobs belong to pinned ones: its name costs nothing and may be wanted."""
    models = [model("a", 1, days=9), model("b", 1, days=1, kept_for="pinned by b"), model("c", 2, days=3)]
    of = facts([*models, model("not-here", 7, days=8)])
    of = replace(of, sizes={blob: size for blob, size in of.sizes.items() if blob != digest(7)})
    made = plan(of, Rules(size=100 * MB, low_size=100 * MB))
    assert gone(made) == ["c:latest"]


def test_what_is_pinned_or_in_use_stays_and_is_said_to() -> None:
    """Never dropped, also when that means that the limit is passed; and somebody is told."""
    models = [
        model("a", 1, days=9, kept_for="pinned by a"),
        model("b", 2, days=8, kept_for="being read"),
        model("c", 3),
    ]
    made = plan(facts(models), Rules(size=50 * MB, low_size=45 * MB, retention=timedelta(days=1)))
    assert gone(made) == ["c:latest"]
    assert made.kept == ((models[0].name, "pinned by a"), (models[1].name, "being read"))
    assert (
        made.short
        == "still 150000000 bytes over the size limit: 2 models are pinned or in use, and nothing else is left to drop"
    )


def test_what_nobody_used_for_too_long_goes_without_any_need_of_room() -> None:
    """Retention counts from the last use; to the second it is not yet too long."""
    models = [model("old", 1, days=30), model("young", 2, days=29.999)]
    made = plan(facts(models), Rules(retention=timedelta(days=30)))
    assert [(row.what, row.reason, row.why) for row in made.rows] == [
        ("old:latest", Reason.RETENTION, "unused for 30 days")
    ]


def test_a_clock_that_was_set_back_makes_nothing_old() -> None:
    """All uses lie in the future then; the order of them still says which one goes first for room."""
    models = [model("b", 2, days=-400), model("a", 1, days=-500)]
    assert plan(facts(models), Rules(retention=timedelta(days=1))).rows == ()
    assert gone(plan(facts(models), Rules(size=150 * MB, low_size=150 * MB))) == ["b:latest"]


def test_the_disk_gets_back_what_must_stay_free() -> None:
    """A floor for the disk holds whatever else fills it."""
    models = [model(f"m{days}", days, days=days) for days in (1, 2, 3)]
    made = plan(facts(models, free=20 * MB), Rules(free=50 * MB, low_free=150 * MB))
    assert gone(made) == ["m3:latest", "m2:latest"]
    assert {row.reason for row in made.rows} == {Reason.FREE}
    assert made.free_after == 220 * MB


def test_blobs_that_nothing_names_go_when_old_and_sooner_where_room_is_wanted() -> None:
    """They are nobody's; but a pull may just have begun, so an hour is left to it."""
    old, young, new = loose(7, hours=25), loose(8, hours=2), loose(9, hours=0.5)
    sizes = {digest(number): 5 * MB for number in (1, 7, 8, 9)}
    of = replace(facts([model("a", 1)]), sizes=sizes, loose=(old, young, new))
    assert gone(plan(of, Rules())) == ["loose 7"]
    made = plan(of, Rules(size=10 * MB, low_size=10 * MB))
    assert gone(made) == ["loose 7", "loose 8"]
    assert [row.reason for row in made.rows] == [Reason.LOOSE, Reason.SIZE]
    assert gone(plan(replace(of, held={digest(7)}), Rules())) == []


@pytest.mark.parametrize("kind", [Kind.PARTIAL, Kind.MANIFEST, Kind.QUARANTINE])
def test_leftovers_go_when_nobody_touched_them_for_long(kind: Kind) -> None:
    """A pull that was given up must not fill the disk for ever; one that runs is not given up."""
    old, young = loose(7, hours=24 * 8, kind=kind), loose(8, hours=24 * 6, kind=kind)
    of = facts([], loose=(old, young), sizes={digest(7): 5 * MB})
    made = plan(of, Rules())
    assert [(row.what, row.why, row.reason) for row in made.rows] == [
        ("loose 7", "untouched for 8 days", Reason.LEFTOVER)
    ]
    assert made.size_after == {Kind.QUARANTINE: 10 * MB, Kind.PARTIAL: 0, Kind.MANIFEST: 0}[kind]
    assert plan(replace(of, held={digest(7)}), Rules()).rows == ()


def test_damaged_copies_are_the_first_to_go_for_room() -> None:
    """They serve nobody; a limit that did not count them would be none."""
    of = facts([model("a", 1, days=2)], loose=(loose(7, hours=1, kind=Kind.QUARANTINE),))
    made = plan(of, Rules(size=103 * MB, low_size=100 * MB))
    assert [(row.what, row.reason) for row in made.rows] == [("loose 7", Reason.SIZE)]
    assert (made.size_before, made.size_after) == (105 * MB, 100 * MB)
    assert plan(of, Rules(size=105 * MB, low_size=100 * MB)).rows == ()


def test_bytes_are_freed_once_though_a_leftover_and_a_model_both_go() -> None:
    """The sum is shown to people, and decides when enough has gone."""
    partial = loose(1, hours=24 * 30, kind=Kind.PARTIAL)
    of = facts([model("a", 1, days=30)], size=5 * MB, loose=(partial,))
    made = plan(of, Rules(retention=timedelta(days=20)))
    assert [(row.what, row.frees) for row in made.rows] == [("loose 1", 5 * MB), ("a:latest", 0)]
    assert made.size_after == 0


@st.composite
def stores(draw: st.DrawFn) -> tuple[Facts, Rules]:
    """Any store with blobs that models share, some pinned, some held, and any limits."""
    blobs = {digest(number): draw(st.integers(0, 50)) for number in range(12)}
    pick = st.frozensets(st.sampled_from(sorted(blobs)), min_size=1, max_size=4)
    kept = st.sampled_from([None, None, None, "pinned"])
    days = st.integers(-3, 40)
    models = [
        ModelFacts(ModelName.parse(f"m{at}"), draw(pick), NOW - timedelta(days=draw(days)), draw(kept))
        for at in range(draw(st.integers(0, 8)))
    ]
    named = {blob for one in models for blob in one.blobs}
    spare = [
        Loose(Kind.BLOB, str(blob), size, NOW - timedelta(hours=draw(st.integers(0, 60))), blob)
        for blob, size in blobs.items()
        if blob not in named
    ]
    held = draw(st.frozensets(st.sampled_from(sorted(blobs)), max_size=2))
    models = [replace(one, kept_for=one.kept_for or ("held" if one.blobs & held else None)) for one in models]
    size, low = draw(st.integers(1, 300)), draw(st.integers(1, 100))
    free = draw(st.none() | st.integers(-50, 300))
    rules = Rules(
        size=draw(st.sampled_from([None, size])),
        low_size=size * low // 100,
        free=draw(st.integers(0, 100)),
        low_free=120,
        retention=draw(st.none() | st.just(timedelta(days=20))),
    )
    return Facts(models, blobs, held, spare, draw(st.integers(0, 60)), free, now=NOW), rules


@given(stores())
def test_whatever_the_store_the_plan_keeps_its_promises(store: tuple[Facts, Rules]) -> None:
    """Sums are right, nothing kept or needed goes, and it stops as soon as it may."""
    of, rules = store
    made = plan(of, rules)
    names = {row.name for row in made.rows if row.kind is Kind.MODEL}
    staying = [one for one in of.models if one.name not in names]
    assert all(one.kept_for is None for one in of.models if one.name in names)

    needed = {blob for one in staying for blob in one.blobs} | of.held
    gone_blobs = {row.digest for row in made.rows if row.kind is Kind.BLOB}
    gone_blobs |= {blob for one in of.models if one.name in names for blob in one.blobs} - needed
    assert not gone_blobs & needed
    assert made.size_before - made.size_after == made.frees == sum(of.sizes[one] for one in gone_blobs if one)

    over = rules.size is not None and made.size_after > rules.size
    under = made.free_after is not None and made.free_after < rules.free
    assert (made.short is not None) == (over or under)
    if over or under:
        assert all(one.kept_for for one in staying if one.blobs & gone_blobs or not _needless(one, of, staying))

    for_room = [row for row in made.rows if row.kind is Kind.MODEL and row.reason is not Reason.RETENTION]
    used = [row.used_at for row in for_room if row.used_at]
    assert used == sorted(used), "the least recently used go first"
    if for_room:
        newest = max(used)
        older = [one for one in staying if one.used_at < newest and not one.kept_for]
        assert all(_needless(one, of, staying) for one in older), "only what frees nothing may stay behind"


def _needless(one: ModelFacts, of: Facts, staying: list[ModelFacts]) -> bool:
    """Whether dropping it too would free nothing."""
    others = {blob for other in staying if other is not one for blob in other.blobs}
    return not any(of.sizes.get(blob) for blob in one.blobs - others - of.held)
