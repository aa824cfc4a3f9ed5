"""Heartbeats and nodes as values: what is taken for one, what is shown of one, and when it is what."""

import ipaddress
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.hub import InvalidHeartbeat, Node, Status, parse_heartbeat
from tests.hub import SEED, heartbeat

NOW = datetime(2025, 11, 7, 11, 9, 19, 727166, tzinfo=UTC)
NODE = Node(said=heartbeat(), address="172.19.0.2", last_seen=NOW)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
LIKELY = st.one_of(JSON, st.sampled_from(list(SEED.values())), st.integers(-2, 70_000), st.lists(st.text(), max_size=3))
KEYS = (*SEED, "loaded", "api", "version", "slots", "weight")


def _of_one_machine(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (one.is_multicast or one.is_unspecified or getattr(one, "ipv4_mapped", None))


def test_it_is_shown_as_older_hubs_showed_it() -> None:
    """The keys in their order and the values in their form: programs read them. Ours come after."""
    view = NODE.view(Status.ONLINE)
    seed = {
        **SEED,
        "last_seen": "2025-11-07T11:09:19.727166Z",
        "status": "online",
        "active_jobs": 0,
        "failure_count": 0,
    }
    assert list(view)[: len(seed)] == list(seed)
    assert {key: view[key] for key in seed} == seed
    assert (view["draining"], view["loaded"], view["url"]) == (False, [], "http://172.19.0.2:8001")
    assert (
        Node(said=heartbeat(), address="::1", last_seen=NOW.replace(microsecond=0))
        .view(Status.ONLINE)["last_seen"]
        .endswith(".000000Z")
    )


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, LIKELY)) | JSON)
def test_whatever_is_said_is_a_heartbeat_or_is_refused(said: object) -> None:
    """Any program on the network may say anything; and what is taken can be shown, kept and read again."""
    try:
        found = parse_heartbeat(said)
    except InvalidHeartbeat as error:
        json.dumps(str(error)).encode()
        return
    assert parse_heartbeat(json.loads(json.dumps(found.body(), allow_nan=False))) == found
    node = Node(said=found, address="10.0.0.1", last_seen=NOW)
    json.dumps(node.view(Status.ONLINE), allow_nan=False)


@given(
    st.fixed_dictionaries(
        {"node_id": st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True), "port": st.integers(1, 65_535)},
        optional={
            "ipv4": st.ip_addresses(v=4).filter(_of_one_machine).map(str),
            "ipv6": st.ip_addresses(v=6).filter(_of_one_machine).map(str),
            "models": st.lists(st.text("abc:/.", min_size=1, max_size=9), max_size=9),
            "load": st.fixed_dictionaries({}, optional={"cpu": st.floats(0, 1), "memory": st.none() | st.floats(0, 1)}),
            "metadata": st.dictionaries(st.text(max_size=9), st.integers(0, 9), max_size=4),
            "from the future": JSON,
        },
    )
)
def test_what_is_in_bounds_is_taken(said: dict[str, Any]) -> None:
    """The other side of refusing: a node that tells the truth is never turned away."""
    found = parse_heartbeat(said)
    assert (found.node_id, found.port) == (said["node_id"], said["port"])
    assert set(found.models) == set(said.get("models", []))
    assert found.cpu == said.get("load", {}).get("cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"node_id": ""},
        {"node_id": "a/b"},
        {"node_id": "a\r\nX: y"},
        {"node_id": "x" * 201},
        {"node_id": 5},
        {"port": 0},
        {"port": 65_536},
        {"port": True},
        {"port": "8001"},
        {"ipv4": "example.com"},
        {"ipv4": "0.0.0.0"},
        {"ipv4": "::1"},
        {"ipv4": 2130706433},
        {"ipv4": "224.0.0.1"},
        {"ipv6": "fe80::1%eth0"},
        {"models": "llama3"},
        {"models": [5]},
        {"models": ["x" * 601]},
        {"models": [""]},
        {"models": ["a\nb"]},
        {"models": ["m"] * 2001},
        {"loaded": {}},
        {"metadata": []},
        {"metadata": {"x": "y" * 20_000}},
        {"metadata": {"x": math.inf}},
        {"load": 0.5},
        {"load": {"cpu": 1.5}},
        {"load": {"cpu": -0.1}},
        {"load": {"memory": math.nan}},
        {"load": {"memory": True}},
        {"api": "yes"},
        {"version": "x" * 65},
        {"slots": 0},
        {"slots": 1.5},
        {"weight": 0},
        {"weight": math.inf},
    ],
)
def test_what_cannot_be_true_is_refused(wrong: dict[str, object]) -> None:
    """Bounds on everything: what is taken is kept, shown to people, and called."""
    with pytest.raises(InvalidHeartbeat, match="accepted is"):
        parse_heartbeat({**SEED, **wrong})


def test_metadata_may_be_deep_only_as_far_as_it_can_be_written() -> None:
    """A body that json reads need not be one that it writes again."""
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"x": deep}
    with pytest.raises(InvalidHeartbeat):
        parse_heartbeat({**SEED, "metadata": deep})


@pytest.mark.parametrize(
    ("said", "came_from", "address"),
    [
        ({"ipv4": "10.0.0.7", "ipv6": "fd00::7"}, "10.0.0.9", "10.0.0.7"),
        ({"ipv4": None, "ipv6": "fd00::7"}, "10.0.0.9", "fd00::7"),
        ({"ipv4": "", "ipv6": None}, "10.0.0.9", "10.0.0.9"),
        ({"ipv4": "127.0.0.1"}, "10.0.0.9", "10.0.0.9"),
        ({"ipv4": "127.0.0.1", "ipv6": "fd00::7"}, "10.0.0.9", "fd00::7"),
        ({"ipv4": "127.0.0.1"}, "127.0.0.1", "127.0.0.1"),
        ({"ipv4": "169.254.169.254"}, "10.0.0.9", "10.0.0.9"),
        ({"ipv4": "10.0.0.7"}, "127.0.0.1", "10.0.0.7"),
    ],
)
def test_where_a_node_is_reached(said: dict[str, Any], came_from: str, address: str) -> None:
    """A stranger must not send the hub's jobs to the hub's own machine by saying that it is there."""
    assert heartbeat(**said).address(came_from) == address


def test_the_status_is_a_question_of_time_and_failures() -> None:
    """Offline comes before degraded, and both bounds count as still good."""
    failed = Node(said=heartbeat(), address="10.0.0.1", last_seen=NOW, failure_count=3)

    def status(node: Node, after_s: float) -> Status:
        return node.status(NOW + timedelta(seconds=after_s), 90, 3)

    assert [status(NODE, after) for after in (-5, 0, 90, 90.1)] == [*[Status.ONLINE] * 3, Status.OFFLINE]
    assert [status(failed, after) for after in (0, 91)] == [Status.DEGRADED, Status.OFFLINE]
    drained = Node(said=heartbeat(), address="10.0.0.1", last_seen=NOW, draining=True)
    later = NOW + timedelta(seconds=181)
    assert (NODE.forgotten(NOW, 180), NODE.forgotten(later, 180), drained.forgotten(later, 180)) == (False, True, False)
