"""Which models a caller is not told of."""

from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from mirror.access import CALLER, Scope, user_of
from mirror.fill import Admission
from mirror.values import InvalidModelName, ModelName

Hidden = Callable[[ModelName], bool]


def hidden_from(request: web.Request, admission: Admission) -> Hidden:
    """Return what says whether the caller of a request must not see a model's name; an admin sees all."""
    caller = request.get(CALLER)
    if admission.empty or (caller is not None and Scope.ADMIN.within(caller.scopes)):
        return nothing_hidden
    user = user_of(request)
    return lambda name: admission.hides(name, user)


def hides(hidden: Hidden, text: str) -> bool:
    """Say whether a model is hidden, by its name as a node or an Ollama writes it: what is no name is,
    as no rule could allow it."""
    with suppress(InvalidModelName):
        return hidden(ModelName.parse(text))
    return hidden is not nothing_hidden


def nothing_hidden(name: ModelName) -> bool:
    """Hide no model: for this machine's own commands."""
    return False
