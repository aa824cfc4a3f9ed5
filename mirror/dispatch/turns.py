"""Turns: the permission to use an Ollama now, waited for in the fair queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from mirror.dispatch.fair import FairQueue, Usage
from mirror.dispatch.lane import Place
from mirror.dispatch.pool import Member, Pool, Wanted
from mirror.errors import AllDown, NoTurn, NowhereToRun
from mirror.tracing import span

_Kind = tuple[str, frozenset[str], bool]
_LOOK_S = 1.0
_IN_VAIN_S = 15.0


@dataclass(eq=False, slots=True)
class _Waiting:
    wanted: Wanted
    given: asyncio.Future[Member]

    @property
    def kind(self) -> _Kind:
        """What is the same for all that run on the same members."""
        return self.wanted.model, self.wanted.tried, self.wanted.job


@dataclass(eq=False, slots=True)
class Turn:
    """A turn on ``member``; ``position`` and ``waited_s`` tell how it was come by, ``begun_at`` when.

    ``cost`` is to be set once it is known.
    """

    member: Member
    place: Place[_Waiting]
    position: int
    waited_s: float
    begun_at: float
    cost: float | None = None


class Turns:
    """Gives turns, as many at once as the pool has slots. For the event loop's thread.

    ``failovers`` counts the turns that went on to another member; ``idle`` is called when nobody waits after something
    has changed.
    Who leaves while waiting is gone from the queue at once: it is the task that waits which is cancelled.
    """

    def __init__(
        self,
        queue: FairQueue[_Waiting],
        pool: Pool,
        *,
        timeout_s: float,
        weights: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._clock = clock
        self._weighed: set[str] = set()
        self.change(weights or {}, timeout_s)
        self._in_vain_since: dict[_Kind, float] = {}
        self.failovers = 0
        self.idle: Callable[[], None] = lambda: None
        pool.changed = self._serve

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def users(self) -> list[Usage]:
        """Return who waits and runs."""
        return self._queue.users()

    def held_s(self, turn: Turn) -> float:
        """Return for how long a turn has been had."""
        return self._clock() - turn.begun_at

    def weigh(self, user: str, weight: float) -> None:
        """Give a user so many times the share of others."""
        self._queue.weigh(user, weight)

    def change(self, weights: Mapping[str, float], timeout_s: float) -> None:
        """Give users of the settings other shares, and who comes from now on another time to wait."""
        self._timeout_s = timeout_s
        for user in self._weighed - weights.keys():
            self._queue.weigh(user, 1.0)
        for user, weight in weights.items():
            self._queue.weigh(user, weight)
        self._weighed = set(weights)

    def block(self, user: str) -> None:
        """Serve and admit a user no more; what waits is kept."""
        self._queue.block(user)

    def unblock(self, user: str) -> None:
        """Serve and admit a user again."""
        self._queue.unblock(user)
        self._serve()

    async def run(self) -> None:
        """Look every second, until cancelled, who waits in vain."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """End the waiting of those whom for a while no member could have served: theirs went while they waited.

        A member that is started anew is back before that.
        """
        waiting: dict[_Kind, list[_Waiting]] = {}
        for place in self._queue:
            waiting.setdefault(place.item.kind, []).append(place.item)
        now = self._clock()
        in_vain = [kind for kind, (first, *_) in waiting.items() if not self._pool.possible(first.wanted)]
        self._in_vain_since = {kind: self._in_vain_since.get(kind, now) for kind in in_vain}
        for kind, since in self._in_vain_since.items():
            if now - since >= _IN_VAIN_S:
                for one in waiting[kind]:
                    self._refuse(one)

    def _refuse(self, waiting: _Waiting) -> None:
        try:
            self._insist(waiting.wanted)
        except (NowhereToRun, AllDown) as error:
            if not waiting.given.done():
                waiting.given.set_exception(error)

    @asynccontextmanager
    async def turn(self, user: str, wanted: Wanted, cost: float) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it while the context lasts.

        Raises:
            TooManyWaiting, UserBlocked: it may not even wait.
            NoTurn: it waited for ``timeout_s``.
            NowhereToRun: no member has the model, or has had it for a while; AllDown: none can be used at all.
        """
        self._insist(wanted)
        asked_at = self._clock()
        waiting = _Waiting(wanted, asyncio.get_running_loop().create_future())
        place = self._queue.put(user, waiting, asked_at, cost=cost)
        position = self._queue.position(place) or 0
        turn: Turn | None = None
        try:
            with span("turn", model=wanted.model):
                member = await self._given(place)
            begun_at = self._clock()
            turn = Turn(member, place, position, begun_at - asked_at, begun_at)
            yield turn
        finally:
            if turn is not None:
                turn.member.active -= 1
                try:
                    self._queue.settle(place, turn.cost)
                finally:
                    self._serve()

    async def elsewhere(self, turn: Turn) -> Member:
        """Give up a member that failed, and wait, before all others of the same user, for one that was not tried.

        Where none is known that could, the others are asked once more what they have: an Ollama that was alone until a
        moment ago has never been asked.

        Raises NowhereToRun, AllDown: there is none; NoTurn. The turn stays on the member that it had.
        """
        waiting = turn.place.item
        wanted = replace(waiting.wanted, tried=waiting.wanted.tried | {turn.member.id})
        if not self._pool.possible(wanted):
            await self._pool.look_again()
        self._insist(wanted)
        waiting.wanted, waiting.given = wanted, asyncio.get_running_loop().create_future()
        failed = turn.member
        failed.active -= 1
        self._queue.give_back(turn.place)
        try:
            turn.member = await self._given(turn.place)
        except BaseException:
            failed.active += 1  # which the end of the turn takes back
            raise
        self.failovers += 1
        return turn.member

    async def _given(self, place: Place[_Waiting]) -> Member:
        given = place.item.given
        self._serve()
        if given.done():
            return given.result()
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._expire, given)
        try:
            return await given
        except BaseException:
            if not self._queue.drop(place):  # it was given in the very moment in which nobody wanted it any more
                given.result().active -= 1
                self._queue.settle(place)
            self._serve()
            raise
        finally:
            timer.cancel()

    def _expire(self, given: asyncio.Future[Member]) -> None:
        if not given.done():
            said = f"no Ollama was free for {self._timeout_s:g} s (dispatch.timeout); try again later"
            given.set_exception(NoTurn(said))

    def _insist(self, wanted: Wanted) -> None:
        if self._pool.possible(wanted):
            return
        if any(self._pool.usable(one) for one in self._pool):
            raise NowhereToRun(f"no Ollama has {wanted.model}" if wanted.model else "no other Ollama can be used")
        raise AllDown("; ".join(f"{one.id}: {one.problem or 'not in use'}" for one in self._pool) or "there is none")

    def _serve(self) -> None:
        """Give turns while there is a slot for a head that waits."""
        nowhere: set[_Kind] = set()

        def fits(waiting: _Waiting) -> Member | None:
            if waiting.given.done() or (nowhere and waiting.kind in nowhere):
                return None
            member = self._pool.choose(waiting.wanted)
            if member is None:
                nowhere.add(waiting.kind)  # no slot gets free meanwhile
            return member

        while len(self._queue) and self._pool.has_room:
            found = self._queue.take(fits, self._clock(), self._prefers)
            if found is None:
                return
            place, member = found
            member.active += 1
            place.item.given.set_result(member)
        if not len(self._queue):
            self.idle()

    def _prefers(self, waiting: _Waiting, member: Member) -> bool:
        return not waiting.wanted.model or waiting.wanted.model in member.loaded
