"""Small answers of an upstream, taken apart: bodies with a bound, where redirects lead, tokens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from mirror.errors import DeniedByUpstream, UpstreamMisbehaved


@dataclass(frozen=True, slots=True)
class Reply:
    """A small answer, read to its end. ``url`` is what was asked last, after redirects."""

    url: URL
    status: int
    headers: Mapping[str, str]
    body: bytes


def redirect_of(reply: Reply) -> URL:
    """Return where a redirect leads. Raises UpstreamMisbehaved."""
    said = reply.headers.get("Location", "")
    target = _address(reply.url, said)
    if target is None:
        shown = repr(said[:200])
        raise UpstreamMisbehaved(f"{reply.url.host}: a redirect to {shown}, which is no usable address")
    return target


def _address(base: URL, said: str) -> URL | None:
    if not said.isascii() or not said.isprintable() or not said or " " in said:
        return None
    try:
        target = base.join(URL(said, encoded=True)).with_fragment(None)
        # yarl looks at host and port only when they are asked for.
        usable = target.scheme in ("http", "https") and target.host and target.port and target.user is None
    except ValueError:
        return None
    return target if usable else None


async def body_of(reply: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes; 0 leaves it unread. Raises UpstreamMisbehaved."""
    if limit == 0:
        reply.close()
        return b""
    body = await reply.content.read(limit + 1)
    while len(body) <= limit and (more := await reply.content.read(limit + 1 - len(body))):
        body += more
    if len(body) > limit:
        raise UpstreamMisbehaved(f"{reply.url.host}: an answer of more than {limit} bytes")
    return body


def token_in(body: bytes) -> str:
    """Return the token in a token server's answer. Raises DeniedByUpstream."""
    try:
        said = json.loads(body)
        token = said.get("token") or said.get("access_token")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DeniedByUpstream("the token server's answer is no JSON object") from error
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise DeniedByUpstream("the token server's answer has no token")
    return token
