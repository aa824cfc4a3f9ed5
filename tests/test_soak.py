"""The soak: that it tells errors apart, keeps count of promises, and runs."""

from collections import Counter
from pathlib import Path

import pytest

from bench.soak.causes import FORESEEN, GRACE_S, Cause, Failed, Timeline, Work, foreseen
from bench.soak.record import Figures, Life, Record
from bench.soak.report import MOST_GROWTH, Report
from bench.soak.soak import Plan, soak


def _figures(descriptors: int = 30, tasks: int = 20, memory: int = 100_000_000) -> Figures:
    return Figures(descriptors=descriptors, tasks=tasks, threads=10, memory=memory, kinds=Counter())


@pytest.mark.parametrize("cause", Cause)
def test_an_error_without_its_cause_is_never_foreseen(cause: Cause) -> None:
    """Else a fault above would hide what is wrong with the answers of models."""
    others = set(Cause) - {cause}
    for this, works, errors in FORESEEN:
        for work in works:
            for error in errors:
                assert foreseen(work, error, {this}) is this
                assert foreseen(work, error, ()) is None
    assert foreseen(Work.BLOB, Failed.REFUSED, others - {Cause.RESTART}) is None
    assert foreseen(Work.BLOB, "status 502", {Cause.DAMAGE}) is None
    assert foreseen(Work.LOOK, "status 500", set(Cause)) is None
    assert foreseen(Work.BLOB, "wrong range", set(Cause)) is None


def test_a_trouble_is_felt_from_its_beginning_until_a_while_after_its_end() -> None:
    """What was over before, or began long after, has another cause."""
    timeline = Timeline()
    trouble = timeline.begin(Cause.UPSTREAM, "429", 100.0)
    assert timeline.now_wrong() == ["429"]
    assert timeline.causes(0.0, 99.0) == frozenset()
    assert timeline.causes(99.0, 101.0) == {Cause.UPSTREAM}
    trouble.ended = 110.0
    assert timeline.now_wrong() == []
    grace = GRACE_S[Cause.UPSTREAM]
    assert timeline.causes(110.0 + grace, 200.0) == {Cause.UPSTREAM}
    assert timeline.causes(110.1 + grace, 200.0) == frozenset()


def test_a_timeline_forgets_what_was_long_ago() -> None:
    """A soak of days has as many faults as it likes."""
    timeline = Timeline()
    for number in range(3000):
        timeline.begin(Cause.OLLAMA, "500", number * 10.0).ended = number * 10.0 + 1
    assert timeline.causes(29_990.0, 29_990.0) == {Cause.OLLAMA}
    assert timeline.causes(0.0, 10.0) == frozenset()


def test_each_promise_that_is_not_kept_is_a_verdict() -> None:
    """The exit code is made of these."""
    record = Record()
    assert record.verdicts(MOST_GROWTH) == []
    record.failed(Work.BLOB, "status 502", Cause.UPSTREAM, "")
    assert record.verdicts(MOST_GROWTH) == []
    record.failed(Work.BLOB, "status 500", None, "")
    record.wrong = 1
    record.promise_broken("the mirror crashed", "exit code 1")
    life = Life(1, "SIGTERM", 60.0, [_figures(), _figures(31, 22, 100_000_001 + MOST_GROWTH)])
    record.lives = [life, Life(2, "SIGKILL", 90.0, [_figures()])]
    assert record.leaks == (1, 2)
    assert record.longest is life
    assert [one.split()[0] for one in record.verdicts(MOST_GROWTH)] == ["1", "1", "1", "1", "memory"]
    assert len(Report(record, 60.0, 1, 0, 0).problems) == 5


def test_fewer_at_the_last_rest_than_at_the_first_is_no_leak_and_makes_up_for_none() -> None:
    """A life that closed something does not hide that another did not."""
    record = Record()
    record.lives = [Life(1, "", 1.0, [_figures(40), _figures(30)]), Life(2, "", 1.0, [_figures(30), _figures(32)])]
    assert record.leaks == (2, 0)


@pytest.mark.parametrize("minutes", [0.4, 10, 30])
def test_a_plan_has_several_lives_and_a_long_one(minutes: float) -> None:
    """However short."""
    plan = Plan.of(minutes)
    assert plan.short_s + plan.long_s == pytest.approx(minutes * 60)
    assert plan.short_s / (plan.life_s * 1.5) >= 2
    assert plan.long_s >= plan.life_s
    assert plan.rests >= 2


@pytest.mark.timeout(240)
async def test_a_short_soak_keeps_every_promise(tmp_path: Path) -> None:
    """The program goes on working, and each change is looked at; most of the time is idle connections being closed."""
    said: list[str] = []
    plan = Plan(short_s=8, life_s=4, long_s=8, rests=2, settle_s=1, short_rests=1)
    report = await soak(tmp_path, plan, 7, said.append)
    assert report.problems == [], report.json()
    assert report.record.blobs_checked
    assert report.record.endings["SIGTERM"]
    assert len(report.record.lives) >= 2
    assert "| **wrong bytes** | 0 | 0 |" in report.markdown()
    assert any("at rest" in one for one in said)
