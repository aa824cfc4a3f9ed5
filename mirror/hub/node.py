"""A node: a machine that tells by heartbeats that it runs an Ollama. Pure."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from mirror.values import Invalid

MOST_MODELS = 2000
_LONGEST_MODEL = 600
_LONGEST_VERSION = 64
_LARGEST_METADATA = 16 << 10
_MOST_SLOTS = 1000
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+~-]{0,199}", re.ASCII)
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class InvalidHeartbeat(Invalid):
    """Not a heartbeat, or one that cannot be true."""

    kind = "heartbeat"


class Status(StrEnum):
    """Whether jobs go to a node."""

    ONLINE = "online"
    DEGRADED = "degraded"
    """It failed too often in a row."""
    OFFLINE = "offline"
    """Nothing was heard of it for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a node says of itself.

    ``cpu`` and ``memory`` are from 0 to 1, None where it does not say. ``loaded`` are models in memory; ``api``: it
    hands on Ollama's API, and not only jobs; ``slots`` are requests that it runs at once, and ``weight`` is how much of
    the work it wants.
    """

    node_id: str
    port: int
    ipv4: str | None = None
    ipv6: str | None = None
    models: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    cpu: float | None = None
    memory: float | None = None
    loaded: tuple[str, ...] = ()
    api: bool = False
    version: str = ""
    slots: int | None = None
    weight: float | None = None

    def body(self) -> dict[str, Any]:
        """Return what ``parse_heartbeat`` reads."""
        return {
            "node_id": self.node_id,
            "ipv4": self.ipv4,
            "ipv6": self.ipv6,
            "port": self.port,
            "models": list(self.models),
            "metadata": dict(self.metadata),
            "load": {"cpu": self.cpu, "memory": self.memory},
            "loaded": list(self.loaded),
            "api": self.api,
            "version": self.version,
            "slots": self.slots,
            "weight": self.weight,
        }

    def address(self, came_from: str) -> str:
        """Return where the node is reached: at what it says, IPv4 first.

        Where it says none, or one that means something else on each machine while the heartbeat came from another
        one, at the address that the heartbeat came from.
        """
        here = _is_own(came_from)
        told = (one for one in (self.ipv4, self.ipv6) if one is not None and (here or not _is_own(one)))
        return next(told, came_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the hub knows it. ``last_seen`` is aware UTC; ``address`` is where it is reached."""

    said: Heartbeat
    address: str
    last_seen: datetime
    draining: bool = False
    active_jobs: int = 0
    failure_count: int = 0

    @property
    def id(self) -> str:
        """What it calls itself."""
        return self.said.node_id

    @property
    def url(self) -> str:
        """Where its agent answers."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.said.port}"

    def status(self, now: datetime, ttl_s: float, max_failures: int) -> Status:
        """Return what it is at ``now``, after so many seconds without a heartbeat or failures in a row."""
        if now - self.last_seen > timedelta(seconds=ttl_s):
            return Status.OFFLINE
        return Status.DEGRADED if self.failure_count >= max_failures else Status.ONLINE

    def forgotten(self, now: datetime, after_s: float) -> bool:
        """Say whether nothing is to be known of it any more. One that people drain is remembered."""
        return not self.draining and now - self.last_seen > timedelta(seconds=after_s)

    def view(self, status: Status) -> dict[str, Any]:
        """Return it as GET /nodes shows it: the keys of older hubs in their order, then ours."""
        return {
            "node_id": self.id,
            "ipv4": self.said.ipv4,
            "ipv6": self.said.ipv6,
            "port": self.said.port,
            "models": list(self.said.models),
            "metadata": dict(self.said.metadata),
            "load": {"cpu": self.said.cpu, "memory": self.said.memory},
            "last_seen": self.last_seen.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "status": status.value,
            "active_jobs": self.active_jobs,
            "failure_count": self.failure_count,
            "loaded": list(self.said.loaded),
            "draining": self.draining,
            "api": self.said.api,
            "version": self.said.version,
            "slots": self.said.slots,
            "weight": self.said.weight,
            "url": self.url,
        }


def parse_heartbeat(said: object) -> Heartbeat:
    """Read the body of POST /nodes/heartbeat; what else it has is left out.

    Raises:
        InvalidHeartbeat: what is no heartbeat, is too large, or cannot be true.
    """
    if not isinstance(said, dict):
        raise InvalidHeartbeat(_shown(said), "a JSON object with node_id, port and models")
    load = said.get("load")
    if load is not None and not isinstance(load, dict):
        raise InvalidHeartbeat(_shown(load), 'a load such as {"cpu": 0.25, "memory": 0.45}')
    load = load or {}
    return Heartbeat(
        node_id=_id(said.get("node_id")),
        port=_whole(said.get("port"), "a port from 1 to 65535", 65_535),
        ipv4=_ip(said.get("ipv4"), ipaddress.IPv4Address),
        ipv6=_ip(said.get("ipv6"), ipaddress.IPv6Address),
        models=_names(said.get("models"), "models"),
        metadata=_metadata(said.get("metadata")),
        cpu=_share(load.get("cpu"), "cpu"),
        memory=_share(load.get("memory"), "memory"),
        loaded=_names(said.get("loaded"), "loaded"),
        api=_flag(said.get("api")),
        version=_version(said.get("version")),
        slots=_slots(said.get("slots")),
        weight=_weight(said.get("weight")),
    )


def _id(value: object) -> str:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise InvalidHeartbeat(
        _shown(value), "a node_id of letters, digits and _ . : @ + ~ - (1 to 200), beginning with one of the first two"
    )


def _whole(value: object, accepted: str, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise InvalidHeartbeat(_shown(value), accepted)


def _ip(value: object, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> str | None:
    if value is None or value == "":
        return None
    found: _Address | None = None
    if isinstance(value, str) and len(value) < 50 and "%" not in value:
        try:
            found = kind(value)
        except ValueError:
            found = None
    mapped = getattr(found, "ipv4_mapped", None)
    if found is None or mapped is not None or found.is_unspecified or found.is_multicast:
        raise InvalidHeartbeat(_shown(value), f"an address of one machine (IPv{kind(0).version}), or null")
    return str(found)


def _names(value: object, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    accepted = f"{key}: a list of at most {MOST_MODELS} names of models"
    if not isinstance(value, list) or len(value) > MOST_MODELS:
        raise InvalidHeartbeat(_shown(value), accepted)
    for one in value:
        if not isinstance(one, str) or not 0 < len(one) <= _LONGEST_MODEL or not one.isprintable():
            raise InvalidHeartbeat(_shown(one), accepted)
    return tuple(dict.fromkeys(value))


def _metadata(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    try:
        text = json.dumps(value, allow_nan=False) if isinstance(value, dict) else ""
    except (ValueError, TypeError, RecursionError):
        text = ""
    if not text or len(text) > _LARGEST_METADATA:
        raise InvalidHeartbeat(_shown(value), f"metadata: a JSON object of at most {_LARGEST_METADATA} bytes")
    kept: dict[str, Any] = json.loads(text)
    return kept


def _share(value: object, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise InvalidHeartbeat(_shown(value), f"load.{key}: a share from 0 to 1, or null")


def _flag(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidHeartbeat(_shown(value), "api: true or false")


def _version(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and len(value) <= _LONGEST_VERSION and value.isprintable():
        return value
    raise InvalidHeartbeat(_shown(value), f"version: a text of at most {_LONGEST_VERSION} characters")


def _slots(value: object) -> int | None:
    return None if value is None else _whole(value, f"slots: a number from 1 to {_MOST_SLOTS}, or null", _MOST_SLOTS)


def _weight(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value <= 1000:
        return float(value)
    raise InvalidHeartbeat(_shown(value), "weight: a number from 0.001 to 1000, or null")


def _is_own(address: str) -> bool:
    """Say whether an address means another machine on each machine, or none that can be told apart."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast


def _shown(value: object) -> str:
    """Return a value for a message; of what may be deep or long only what it is."""
    if isinstance(value, str):
        return value.encode("ascii", "backslashreplace").decode()
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else "a long number"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__
