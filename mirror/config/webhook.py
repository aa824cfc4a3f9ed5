"""The URL that is told of something: what is behind its host is often a secret, and never shown."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainSerializer

from mirror.config.kinds import web_url


def webhook_url(text: str) -> str:
    """Return an absolute http(s) URL, which may have a query, as it was written. Raises ValueError."""
    address, _, query = text.partition("?")
    web_url(address)
    if not re.fullmatch(r"[!-~]*", query) or "#" in query:
        raise ValueError("must have a query of printable ASCII characters, and no fragment")
    return text


def shown(url: str) -> str:
    """Return the URL with ``***`` for all that follows its host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" + ("/***" if parts.path.strip("/") or parts.query else parts.path)


WebhookUrl = Annotated[str, AfterValidator(webhook_url), PlainSerializer(shown, return_type=str, when_used="json")]
