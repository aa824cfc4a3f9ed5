"""The challenge that leads clients to ``/v2/token``, and the address by which they call it (docs/protocol.md §8)."""

from aiohttp import web

from mirror.access import Caller
from mirror.errors import TokenRefused
from mirror.listen import Names
from mirror.listen.sockets import here_of

TOKEN_PATH = "/v2/token"  # noqa: S105  # where tokens are given, not one
_UNKNOWN_HOST = (
    "{host} may be another's than this mirror's, so what an Ollama signs for it is not taken: put it into server.names "
    "of the mirror's settings, with its port where that is not the mirror's own"
)


class Realms:
    """Where clients get tokens: at the host by which they call the mirror, where that is the mirror for sure.

    A registry that an Ollama pulls from may hand on to us what that Ollama has signed for it, Host header and all. So
    nothing is taken that was signed for a host that may be another's, and nobody is sent there to sign.
    """

    def __init__(self, names: Names) -> None:
        self._names = names

    def of(self, request: web.Request, caller: Caller) -> str | None:
        """Return the realm for a caller; None where it called the mirror by what may be somebody else's name."""
        authority = _authority(request)
        default_port = 443 if caller.secure else 80
        if not self._names.calls(authority, here_of(request), default_port):
            return None
        return f"{'https' if caller.secure else 'http'}://{authority}{TOKEN_PATH}"

    def called(self, request: web.Request, caller: Caller) -> str:
        """Return the text of the address that was called: the realm, and the query as sent. Raises TokenRefused."""
        realm = self.of(request, caller)
        if realm is None:
            raise TokenRefused(unknown_host(request))
        return f"{realm}?{request.raw_path.partition('?')[2]}"

    def challenge(self, request: web.Request, caller: Caller) -> dict[str, str] | None:
        """Return the header that sends a client for a token; None where it would be sent to somebody else.

        Ollama takes a realm only on the host and port by which it came (server/auth.go since v0.14.3), and reads quoted
        values only.
        """
        realm = self.of(request, caller)
        if realm is None:
            return None
        parts = request.path.split("/")
        scope = ""
        if len(parts) > 5:
            wanted = "pull" if request.method in ("GET", "HEAD") else "pull,push"
            # Nothing of a path may end the quotes early.
            repository = "".join(
                one for one in f"{parts[2]}/{parts[3]}" if one.isascii() and (one.isalnum() or one in "/._-")
            )
            scope = f',scope="repository:{repository}:{wanted}"'
        return {"WWW-Authenticate": f'Bearer realm="{realm}",service="mirror"{scope}'}


def unknown_host(request: web.Request) -> str:
    """Return the sentence for one who calls the mirror by a name that may be somebody else's."""
    return _UNKNOWN_HOST.format(host=_authority(request)[:200])


def _authority(request: web.Request) -> str:
    # In absolute form the port is in the target only; aiohttp's host leaves it out.
    target = request.raw_path
    said = request.host if target.startswith("/") else target.partition("://")[2].partition("/")[0]
    return "".join(one for one in said if one.isascii() and (one.isalnum() or one in "._-:[]"))
