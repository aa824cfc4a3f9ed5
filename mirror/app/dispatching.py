"""The pool of Ollamas and the turns on them, built on one screen."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from mirror.config import DispatchSettings, Fairness, ProxySettings
from mirror.dispatch import FairQueue, Limits, Member, Patience, Pool, Rules, Sharing, Turns
from mirror.ollama import Backend, Behind


@dataclass(frozen=True, slots=True)
class Dispatching:
    """Who runs next, and where."""

    pool: Pool
    turns: Turns


@asynccontextmanager
async def opened_dispatching(
    dispatch: DispatchSettings, proxy: ProxySettings, behind: Behind
) -> AsyncIterator[Dispatching]:
    """Build it, with the Ollamas that the settings name; the one behind the mirror is the first of them."""
    async with AsyncExitStack() as stack:
        pool = Pool(Limits(dispatch.max_failures, dispatch.probe_after))
        if behind.any is not None:
            pool.put(_member(behind.any, dispatch, proxy, 0))
        for place, one in enumerate(proxy.backends[1:], 1):
            backend = Backend(one.url, proxy.connect_timeout, pseudonym=behind.pseudonym)
            stack.push_async_callback(backend.close)
            pool.put(_member(backend, dispatch, proxy, place))
        rules = Rules(
            sharing=Sharing.COST if dispatch.fairness is Fairness.COST else Sharing.TURNS,
            lane=dispatch.max_waiting_per_user,
            total=dispatch.max_waiting,
            patience=Patience(turns=dispatch.patience),
        )
        turns = Turns(FairQueue(rules), pool, timeout_s=dispatch.timeout, weights=dict(dispatch.weights))
        yield Dispatching(pool, turns)


def _member(backend: Backend, dispatch: DispatchSettings, proxy: ProxySettings, place: int) -> Member:
    said = proxy.backends[place] if place < len(proxy.backends) else None
    name = said.name if said is not None else None
    slots = said.slots if said is not None else None
    return Member(
        id=name or urlsplit(backend.url).netloc,
        backend=backend,
        slots=slots or dispatch.slots,
        weight=said.weight if said is not None else 1.0,
    )
