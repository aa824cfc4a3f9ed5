"""Server-sent events, read (WHATWG HTML, "Server-sent events")."""

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any


async def parsed(lines: AsyncIterable[bytes]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each event with its data; what is no JSON object is passed over, as are comments."""
    name, data = "message", list[str]()
    async for line in lines:
        field, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not field and not value:
            if (said := _object("\n".join(data))) is not None:
                yield name, said
            name, data = "message", []


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
