"""Which models a caller is not told of."""

from collections.abc import Callable

from aiohttp import web

from mirror.access import CALLER, Scope, user_of
from mirror.fill import Admission
from mirror.values import ModelName

Hidden = Callable[[ModelName], bool]


def hidden_from(request: web.Request, admission: Admission) -> Hidden:
    """Return what says whether the caller of a request must not see a model's name; an admin sees all."""
    caller = request.get(CALLER)
    if caller is not None and Scope.ADMIN.within(caller.scopes):
        return nothing_hidden
    user = user_of(request)
    return lambda name: admission.hides(name, user)


def nothing_hidden(name: ModelName) -> bool:
    """Hide no model: for this machine's own commands."""
    return False
