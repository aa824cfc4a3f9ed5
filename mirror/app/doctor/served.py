"""What clients get of the mirror that runs here: a blob as Ollama wants it."""

from collections.abc import AsyncIterator

import aiohttp

from mirror.app.doctor.finding import Finding, Verdict
from mirror.client import AdminClient
from mirror.client.probe import probe, sample
from mirror.client.ways import Key, bearer
from mirror.errors import ServerError


async def served(url: str, key: Key) -> AsyncIterator[Finding]:
    """Ask the mirror at ``url`` for a blob that it has: its length, its Location, its first and last byte."""
    try:
        async with AdminClient(url, key) as client:
            found = await sample(client)
    except (ServerError, KeyError, TypeError, ValueError) as error:
        advice = "name its key in security.api_key, or look at its log"
        yield Finding("range", Verdict.WARNING, f"the mirror does not say what it has: {error}", advice)
        return
    if found is None:
        yield Finding("range", Verdict.OK, "not tried: the mirror has no model yet")
        return
    async with aiohttp.ClientSession(headers=bearer(key)) as session:
        for one in await probe(session, found):
            advice = "" if one.good else "Ollama cannot pull like this: look at the mirror's log"
            yield Finding(one.matter, Verdict.OK if one.good else Verdict.PROBLEM, one.said, advice)
