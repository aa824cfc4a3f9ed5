"""How often one client may ask."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.access import Limit, WrongKeys, client_of
from tests.access import Clock


@given(
    st.integers(1, 20),
    st.floats(0.5, 100),
    st.lists(st.floats(0, 30), min_size=1, max_size=200),
)
def test_no_more_than_the_limit_comes_through_in_any_time(count: int, window_s: float, pauses: list[float]) -> None:
    """Whatever the pauses between requests: the contract, checked over every stretch of them."""
    clock = Clock(0.0)
    limit = Limit(count, window_s, clock)
    passed: list[float] = []
    for pause in pauses:
        clock.at += pause
        if limit.take("a") == 0.0:
            passed.append(clock.at)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            most = count * (1 + (passed[last] - passed[first]) / window_s)
            assert last - first + 1 <= most + 1e-6


@given(st.integers(1, 50), st.floats(0.5, 100))
def test_the_whole_count_comes_through_at_once_and_again_a_window_later(count: int, window_s: float) -> None:
    """A page that asks for much at once is no attack."""
    clock = Clock(0.0)
    limit = Limit(count, window_s, clock)
    for _ in range(2):
        assert [limit.take("a") for _ in range(count)] == [0.0] * count
        assert limit.take("a") > 0.0
        clock.at += window_s * 1.001


@given(st.integers(1, 20), st.floats(0.5, 100), st.integers(1, 30))
def test_who_waits_as_long_as_it_is_told_comes_through(count: int, window_s: float, more: int) -> None:
    """Retry-After must be true, and to ask too early must not make it longer."""
    clock = Clock(0.0)
    limit = Limit(count, window_s, clock)
    for _ in range(count):
        limit.take("a")
    wait = limit.take("a")
    assert wait > 0.0
    assert [limit.take("a") for _ in range(more)] == [wait] * more
    clock.at += wait * 1.000001
    assert limit.take("a") == 0.0


def test_clients_have_counts_of_their_own_and_the_oldest_is_forgotten() -> None:
    """A million addresses must not fill the memory."""
    clock = Clock(0.0)
    limit = Limit(1, 60, clock, most=2)
    assert [limit.take(one) for one in "abab"] == [0.0, 0.0, 60.0, 60.0]
    assert limit.take("c") == 0.0
    assert limit.take("b") == 60.0
    assert limit.take("a") == 0.0, "it was forgotten"


def test_ten_wrong_keys_a_minute() -> None:
    """Enough for a typing error, too few to guess."""
    clock = Clock(0.0)
    wrong = WrongKeys(clock)
    assert [wrong.take("a") for _ in range(10)] == [0.0] * 10
    assert 0.0 < wrong.take("a") <= 6.0


def test_requests_are_counted_by_key_else_by_network() -> None:
    """One customer has a whole /64 of IPv6 to ask from, and could else ask without end."""
    assert client_of("abcd", "10.0.0.1") == client_of("abcd", "10.0.0.2")
    assert client_of(None, "10.0.0.1") != client_of(None, "10.0.0.2")
    assert client_of(None, "2001:db8::1") == client_of(None, "2001:db8::ffff:2")
    assert client_of(None, "2001:db8:0:1::1") != client_of(None, "2001:db8::1")
    assert client_of(None, "::") != client_of("::", "")
    assert client_of(None, "/run/a:socket") == "/run/a:socket"
