"""Whose a request is, and whose prompt jobs it may see."""

from collections.abc import Callable

from aiohttp import web

from mirror.access import RIGHTS, Scope, Users


class Sight:
    """While ``guarded`` says that there are keys, a user sees and changes their own only, and an admin all."""

    def __init__(self, users: Users, guarded: Callable[[], bool]) -> None:
        self._users = users
        self._guarded = guarded

    def user(self, request: web.Request) -> str:
        """Return who a request is counted for."""
        return self._users.of(request)

    def owner(self, request: web.Request) -> str | None:
        """Return whose alone a request may see; None is everybody's."""
        if not self._guarded():
            return None
        rights = request.get(RIGHTS)
        return None if rights is not None and rights.refusal(Scope.ADMIN) is None else self.user(request)

    def sees(self, request: web.Request, user: str) -> bool:
        """Whether a request may see what is a user's."""
        return self.owner(request) in (None, user)
