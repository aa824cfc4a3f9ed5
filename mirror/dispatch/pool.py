"""The Ollamas that requests run on: what each has, how busy it is, whether it can be reached."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import structlog

from mirror.dispatch.choice import Candidate, choose
from mirror.errors import BackendError
from mirror.ollama import Backend, Ollama
from mirror.values import InvalidModelName, ModelName

log = structlog.get_logger(__name__)

_LOOK_S, _AGAIN_S, _WITHIN_S, _KNOCK_S = 5.0, 1.0, 4.0, 1.0
_FRESH_S = 1.0
_MOST_CONVERSATIONS = 10_000


Fetch = Callable[[str, str], Awaitable[bool]]
"""Brings a model that only the store has to an Ollama, for a user; returns whether it did. Raises NotAllowed."""


@lru_cache(maxsize=4096)
def model_key(text: str) -> str:
    """Return what is the same for every way of writing a model's name, as an Ollama would read it."""
    try:
        name = ModelName.parse(text).folded
    except InvalidModelName:
        return text.lower()
    return str(name.with_tag("latest") if name.tag == "local" else name)


@dataclass(eq=False, slots=True, kw_only=True)
class Member:
    """One Ollama of the pool.

    ``slots`` requests run on it at once. ``models`` and ``loaded`` are keys of models, on its disk and in its memory.
    ``node``: it came by a heartbeat, and is looked at by nobody but its agent; ``relays`` says whether that hands on
    Ollama's API, and not only jobs. ``lost``: it did not answer, and has not since.
    """

    id: str
    backend: Backend
    slots: int = 1
    weight: float = 1.0
    node: bool = False
    relays: bool = True
    online: bool = False
    draining: bool = False
    models: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    cpu: float | None = None
    active: int = 0
    failures: int = 0
    failed_at: float = 0.0
    looked_at: float = float("-inf")
    problem: str | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request needs of a member: a ``model`` by its key, empty for any; not to be one of ``tried``.

    ``job``: a member that takes jobs only will do.
    """

    model: str = ""
    conversation: str = ""
    tried: frozenset[str] = frozenset()
    job: bool = False


@dataclass(slots=True)
class Limits:
    """When a member is left alone: after so many failures in a row, for so long."""

    max_failures: int = 3
    probe_after_s: float = 10.0


@dataclass(slots=True)
class Pool:
    """All members. For the event loop's thread. ``changed`` is called when one may take work that could not before.

    ``lone``: there is one Ollama and no choice; it is asked whatever is known of it, and left in peace else.
    """

    limits: Limits = field(default_factory=Limits)
    now: Callable[[], float] = time.monotonic
    changed: Callable[[], None] = lambda: None
    lone: bool = False
    _members: dict[str, Member] = field(default_factory=dict)
    _served: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def get(self, id_: str) -> Member | None:
        """Return a member by its id."""
        return self._members.get(id_)

    def put(self, member: Member) -> None:
        """Add a member, or have it take the place of the one of its id."""
        self._members[member.id] = member
        self._count()

    def remove(self, id_: str) -> Member | None:
        """Take a member out; what runs on it goes on."""
        found = self._members.pop(id_, None)
        self._count()
        return found

    def _count(self) -> None:
        self.lone = len(self._members) == 1 and not any(one.node for one in self._members.values())
        self.changed()

    def degraded(self, member: Member) -> bool:
        """Whether it failed too often, and not long ago: after a while one request may try it again."""
        if self.lone:
            return False
        if member.failures < self.limits.max_failures:
            return False
        return self.now() - member.failed_at < self.limits.probe_after_s or member.active > 0

    def usable(self, member: Member) -> bool:
        """Whether requests may go to it at all."""
        return (member.online or self.lone) and not member.draining and not self.degraded(member)

    @property
    def has_room(self) -> bool:
        """Whether any member might take a request now."""
        return any(one.active < one.slots and self.usable(one) for one in self._members.values())

    def choose(self, wanted: Wanted) -> Member | None:
        """Return the member on which a request runs now; None where it has to wait, or can run nowhere."""
        if self.lone:
            return next((one for one in self.possible(wanted) if one.active < one.slots), None)
        best = choose(self._candidate(one, wanted) for one in self._members.values())
        return self._members[best.id] if best is not None else None

    def possible(self, wanted: Wanted) -> list[Member]:
        """Return those on which a request may run sooner or later."""
        return [one for one in self._members.values() if self._allowed(one, wanted) and self.usable(one)]

    def least_busy(self) -> Member | None:
        """Return the member with the least to do, that hands on Ollama's API; None where none is usable."""
        usable = [one for one in self._members.values() if one.relays and self.usable(one)]
        return min(usable, key=lambda one: (one.active / one.weight, one.id), default=None)

    def having(self, model: str) -> list[Member]:
        """Return those that are online and have a model."""
        return [one for one in self._members.values() if one.online and model in one.models]

    def drain(self, member: Member, *, draining: bool) -> None:
        """Give a member nothing new, or work again."""
        member.draining = draining
        self.changed()

    def failed(self, member: Member, problem: str, *, offline: bool) -> None:
        """A request failed there before its first byte; ``offline``: it could not even be reached."""
        member.failures += 1
        member.failed_at = self.now()
        member.problem = problem
        if offline:
            self._set_online(member, online=False)

    def excuse(self, member: Member) -> None:
        """Take one failure back: it was not the member's fault."""
        member.failures = max(0, member.failures - 1)

    def succeeded(self, member: Member, model: str = "", conversation: str = "") -> None:
        """A request for ``model`` got its first byte there, so that it has that in its memory now."""
        member.failures = 0
        if model:
            member.loaded = frozenset({model}) if self.lone else member.loaded | {model}
        member.problem = None
        if conversation:
            self._served[conversation] = member.id
            self._served.move_to_end(conversation)
            if len(self._served) > _MOST_CONVERSATIONS:
                self._served.popitem(last=False)

    def lacks(self, member: Member, model: str) -> None:
        """It said itself that it has no such model."""
        member.models -= {model}

    async def look(self, member: Member) -> None:
        """Ask a member what it has; where it does not answer in time it is offline."""
        ollama = Ollama(member.backend)
        try:
            async with asyncio.timeout(_WITHIN_S):
                models = await ollama.models()
                running = await ollama.running()
        except (BackendError, TimeoutError) as error:
            member.problem = str(error) or "no answer in time"
            self._set_online(member, online=False)
            return
        finally:
            member.looked_at = self.now()
        member.models = frozenset(model_key(one.name) for one in models)
        member.loaded = frozenset(model_key(one.name) for one in running)
        self._set_online(member, online=True)

    async def look_again(self, members: Iterable[Member] | None = None) -> None:
        """Ask those members what they have that were not asked a moment ago; nodes tell it by themselves."""
        if self.lone:
            return
        async with self._looking:  # who asks while somebody looks waits for what is found
            await self._look_at(members)

    async def _look_at(self, members: Iterable[Member] | None) -> None:
        due = [one for one in members or self if not one.node and self.now() - one.looked_at > _FRESH_S]
        async with asyncio.TaskGroup() as group:
            for one in due:
                group.create_task(self.look(one))

    async def knock(self) -> None:
        """See every second, until cancelled, whether nodes answer again that did not: their heartbeats are rare."""
        while True:
            await asyncio.sleep(_AGAIN_S)
            async with asyncio.TaskGroup() as group:
                for one in self:
                    if one.node and one.lost:
                        group.create_task(self._knock_at(one))
            self.changed()

    async def _knock_at(self, member: Member) -> None:
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(_KNOCK_S), member.backend.asked("GET", "/healthz"):
                self._set_online(member, online=True)

    async def watch(self, member: Member) -> None:
        """Look at a member again and again, sooner while it is offline, until cancelled."""
        while True:
            if not self.lone:
                await self.look(member)
                self.changed()  # it may have been left alone for long enough
            await asyncio.sleep(_LOOK_S if member.online else _AGAIN_S)

    def _set_online(self, member: Member, *, online: bool) -> None:
        member.lost = not online
        if online == member.online:
            return
        member.online = online
        log.info("ollama online" if online else "ollama offline", id=member.id, problem=member.problem)
        self.changed()

    def _allowed(self, member: Member, wanted: Wanted) -> bool:
        fitting = (member.relays or wanted.job) and member.id not in wanted.tried
        return fitting and self._has(member, wanted)

    def _has(self, member: Member, wanted: Wanted) -> bool:
        return self.lone or not wanted.model or wanted.model in member.models

    def _candidate(self, member: Member, wanted: Wanted) -> Candidate:
        return Candidate(
            id=member.id,
            online=self.usable(member),
            has=self._has(member, wanted),
            allowed=self._allowed(member, wanted),
            draining=member.draining,
            active=member.active,
            slots=member.slots,
            cpu=member.cpu,
            failures=member.failures,
            loaded=wanted.model in member.loaded,
            sticky=bool(wanted.conversation) and self._served.get(wanted.conversation) == member.id,
            weight=member.weight,
        )
