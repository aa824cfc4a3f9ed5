"""The mirror's pages as a browser without scripts has them: read, and their forms sent."""

import re
from dataclasses import dataclass
from html import unescape
from io import BytesIO
from urllib.parse import urlencode

from tests.support import Machine

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Shown:
    """A page as it came; ``where`` is where a form led to."""

    status: int
    text: str
    where: str = ""

    @property
    def token(self) -> str:
        """What its forms send along."""
        found = re.search(r'name="form" value="([^"]+)"', self.text)
        return found[1] if found else ""

    @property
    def words(self) -> str:
        """Its text without its markup."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.text)).split())


async def page(client: Machine, path: str, headers: dict[str, str] | None = None) -> Shown:
    """Read a page."""
    answer = await client.get(path, None, Accept="text/html", **(headers or {}))
    return Shown(answer.status, answer.body.decode())


async def send(client: Machine, path: str, token: str, headers: dict[str, str] | None = None, **fields: str) -> Shown:
    """Send a form, from a page of the mirror's own."""
    own = {"Origin": str(client.url("/").origin()), "Accept": "text/html", "Content-Type": FORM, **(headers or {})}
    body = BytesIO(urlencode({"form": token, **fields}).encode())
    sent = client.session.post(client.url(path), data=body, headers=own, allow_redirects=False)
    async with sent as answer:
        return Shown(answer.status, await answer.text(), answer.headers.get("Location", ""))
