"""What Ollama relies on when it pulls a blob, asked of a running mirror (docs/protocol.md §3)."""

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import aiohttp
from yarl import URL

from mirror.client.admin import AdminClient
from mirror.values import ByteRange, ModelName
from mirror.values.http_range import range_header

_WITHIN = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class Sample:
    """A blob that the mirror has."""

    url: URL
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one request for the blob gave: ``matter`` is length, location or range; ``said`` a sentence."""

    matter: str
    good: bool
    said: str


async def sample(client: AdminClient) -> Sample | None:
    """Return the smallest blob of the model that was used last; None where there is none. Raises ServerError."""
    models = [one for one in await client.models() if one["complete"]]
    models.sort(key=lambda one: one["used_at"] or "", reverse=True)
    for one in models[:3]:
        layers: list[dict[str, Any]] = (await client.model(one["name"]))["layers"]
        held = [layer for layer in layers if layer["stored"] and layer["size"]]
        if held:
            least = min(held, key=itemgetter("size"))
            repository = ModelName.parse(one["name"]).repository
            url = client.url.joinpath("v2", *repository.split("/"), "blobs", least["digest"])
            return Sample(url, least["digest"], least["size"])
    return None


async def probe(session: aiohttp.ClientSession, of: Sample) -> list[Found]:
    """Ask for a blob's length, where it is, and its first and last byte; reads no more of it than that.

    What cannot be asked is not good. Safe for any number at once; it counts as a use of the blob.
    """
    found = []
    for matter, ask in (("length", _length), ("location", _location), ("range", _ranges)):
        try:
            wrong = await ask(session, of)
        except (aiohttp.ClientError, TimeoutError) as error:
            wrong = f"no answer: {str(error) or type(error).__name__}"
        found.append(Found(matter, not wrong, wrong or _GOOD[matter]))
    return found


_GOOD = {
    "length": "HEAD of a blob says its length",
    "location": "a blob without a range comes with a Location",
    "range": "the first and the last byte of a blob come as ranges",
}


async def _length(session: aiohttp.ClientSession, of: Sample) -> str:
    async with session.head(of.url, timeout=_WITHIN, allow_redirects=False) as reply:
        if reply.status == 200 and reply.headers.get("Content-Length") == str(of.size):
            return ""
        length = reply.headers.get("Content-Length", "no")
        return f"HEAD of a blob of {of.size} bytes gave {reply.status} and {length} Content-Length"


async def _location(session: aiohttp.ClientSession, of: Sample) -> str:
    # Its body is not read: like Ollama, this one leaves.
    async with session.get(of.url, timeout=_WITHIN, allow_redirects=False) as reply:
        reply.close()
        if reply.status in (200, 307) and "Location" in reply.headers:
            return ""
        has = "with" if "Location" in reply.headers else "without"
        return f"a blob without a range gave {reply.status} {has} Location; Ollama wants 200 or 307, and a Location"


async def _ranges(session: aiohttp.ClientSession, of: Sample) -> str:
    for at in (0, of.size - 1):
        headers = {"Range": range_header(ByteRange(at, at + 1))}
        async with session.get(of.url, headers=headers, timeout=_WITHIN) as reply:
            status, body = reply.status, await reply.content.read(2)
            reply.close()
            if status != 206 or len(body) != 1:
                return f"byte {at} of a blob gave {status} and {len(body)} bytes at least; Ollama wants 206 and one"
    return ""
