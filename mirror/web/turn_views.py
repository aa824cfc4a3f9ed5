"""Users and Ollamas as JSON; the same for the admin API, for the event stream and for pages."""

from typing import Any

from mirror.dispatch import Member, Pool, Usage
from mirror.web.hiding import Hidden, hides


def user_view(one: Usage) -> dict[str, Any]:
    """Return one user of the queue; ``cost`` is in tokens."""
    return {
        "user": one.user,
        "waiting": one.waiting,
        "running": one.running,
        "taken": one.taken,
        "cost": round(one.cost, 1),
        "weight": one.weight,
        "blocked": one.blocked,
    }


def users_view(users: list[Usage]) -> list[dict[str, Any]]:
    """Return all users, who has the most to do first."""
    return [user_view(one) for one in sorted(users, key=lambda u: (-u.waiting, -u.running, -u.taken, u.user))]


def state_of(one: Member, pool: Pool) -> str:
    """Return the state of an Ollama in a word: online, degraded, draining, offline; or unknown.

    One that is alone is never looked at, and so known only by what it answered last.
    """
    if one.draining:
        return "draining"
    if pool.lone:
        return "offline" if one.problem else "online" if one.loaded else "unknown"
    return "degraded" if pool.degraded(one) else "online" if one.online else "offline"


def backend_view(one: Member, pool: Pool, hidden: Hidden) -> dict[str, Any]:
    """Return one Ollama; ``active`` of its ``slots`` are taken, ``cpu`` is from 0 to 1 or null."""
    return {
        "id": one.id,
        "url": one.backend.url,
        "state": state_of(one, pool),
        "node": one.node,
        "active": one.active,
        "slots": one.slots,
        "models": len(one.models),
        "loaded": sorted(name for name in one.loaded if not hides(hidden, name)),
        "cpu": one.cpu,
        "failures": one.failures,
        "problem": one.problem,
    }
