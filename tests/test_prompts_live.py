"""What a running prompt has said, from any place on."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.prompts import Lives
from mirror.prompts.live import Live


@given(st.lists(st.text(min_size=1, max_size=5), max_size=20), st.integers(-3, 110))
def test_since_is_the_rest_of_all_that_was_said(pieces: list[str], start: int) -> None:
    """Whatever the pieces were in which it came; a place that there is not has nothing after it."""
    live = Live()
    live.begin(1)
    for one in pieces:
        live.say(one)
    whole = "".join(pieces)
    assert live.whole() == whole
    assert live.since(start) == (whole[start:] if start >= 0 else "")


def test_much_comes_in_parts() -> None:
    """So that no event is as long as an answer."""
    live = Live()
    live.begin(1)
    for _ in range(100):
        live.say("x" * 10_000)
    read, parts = 0, 0
    while text := live.since(read):
        read, parts = read + len(text), parts + 1
        assert len(text) < 100_000
    assert (read, parts > 5) == (1_000_000, True)


def test_news_wake_who_looked_before_and_nothing_stays_behind() -> None:
    """A reader keeps a life, and so does a try."""
    lives = Lives()
    with lives.reading("a") as live:
        before = live.changed
        assert lives.begin("a", 1) is live
        assert before.is_set()
        before = live.changed
        live.say("x")
        assert before.is_set()
        lives.end("a")
        assert (live.tries, live.length, len(lives)) == (0, 0, 1)
    assert len(lives) == 0
    lives.begin("b", 1)
    assert len(lives) == 1
    lives.end("b")
    lives.end("b")
    assert len(lives) == 0
