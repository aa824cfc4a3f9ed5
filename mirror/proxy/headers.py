"""Which headers go on to the next machine, and which were for the last one (RFC 9110 §7.6). Pure."""

from multidict import CIMultiDict, CIMultiDictProxy

_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
_OURS = frozenset({"host", "origin", "authorization", "expect", "via", "x-forwarded-for"})
"""Written anew, or answered by us: a key of the mirror's is no business of the Ollama behind it."""

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


def passed_on(headers: Headers, peer: str) -> CIMultiDict[str]:
    """Return what of a request's headers the Ollama behind us gets; ``peer`` is who sent it to us."""
    kept = _end_to_end(headers, _OURS)
    came_by = ", ".join([*headers.getall("X-Forwarded-For", []), peer])
    kept["X-Forwarded-For"] = came_by
    return kept


def handed_back(headers: Headers) -> CIMultiDict[str]:
    """Return what of an answer's headers the client gets. Lines of a stream are not to be held back on the way."""
    kept = _end_to_end(headers, frozenset())
    if kept.get("Content-Type", "").startswith(("application/x-ndjson", "text/event-stream")):
        kept["X-Accel-Buffering"] = "no"
    return kept


def _end_to_end(headers: Headers, dropped: frozenset[str]) -> CIMultiDict[str]:
    named = {one.strip().lower() for line in headers.getall("Connection", []) for one in line.split(",")}
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        folded = name.lower()
        if folded not in _HOP and folded not in dropped and folded not in named and _sound(value):
            kept.add(name, value)
    return kept


def _sound(value: str) -> bool:
    """Say whether a value can be written again: bytes that are no text could not be."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
