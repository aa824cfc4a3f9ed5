"""What a request for an answer of a model is: which model, how much of one, in which conversation."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mirror.dispatch import PROMPT_SHARE, model_key
from mirror.proxy.bodies import Refused, object_of
from mirror.values import LARGE_JSON

_MADE = 256
"""Tokens that an answer is thought to have where the request sets no limit."""
_BYTES_A_TOKEN = 4
_LONGEST_NAME = 600


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: ``raw`` is what the Ollama gets; ``text`` is the model as the client calls it, ``model`` its key.

    ``cost`` is what it may come to, in tokens made. Empty where the body does not say: that is for Ollama to refuse.
    """

    raw: bytes
    text: str = ""
    model: str = ""
    conversation: str = ""
    cost: float = float(_MADE)


async def read(raw: bytes, aliases: Mapping[str, str], user: str) -> Asked:
    """Read a body; a model's alias is replaced in it. What is no JSON goes on as it is, to any Ollama.

    Raises Refused: reading it would take too long.
    """
    if len(raw) > LARGE_JSON:
        return await asyncio.to_thread(_read, raw, aliases, user)
    return _read(raw, aliases, user)


def _read(raw: bytes, aliases: Mapping[str, str], user: str) -> Asked:
    try:
        body = object_of(raw, "request")
    except Refused as error:
        if error.status == 413:
            raise
        return Asked(raw)
    text = next((body[key] for key in ("model", "name") if isinstance(body.get(key), str) and body[key]), "")
    if len(text) > _LONGEST_NAME:
        return Asked(raw)  # no model is called so, and Ollama says it
    real = aliases.get(text.lower(), text)
    if real != text:
        raw = json.dumps({**{key: value for key, value in body.items() if key != "name"}, "model": real}).encode()
    key = model_key(real) if real else ""
    cost = _limit(body) + PROMPT_SHARE * len(raw) / _BYTES_A_TOKEN
    return Asked(raw, real, key, _conversation(body, key, user), cost)


def _limit(body: Mapping[str, Any]) -> float:
    options = body.get("options")
    said = [options.get("num_predict")] if isinstance(options, dict) else []
    said += [body.get(key) for key in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    limits = [one for one in said if type(one) is int and 0 < one <= 1_000_000]
    return float(min([*limits, _MADE]))


def _conversation(body: Mapping[str, Any], model: str, user: str) -> str:
    """Return what is the same for every turn of one conversation: its beginning, which the Ollama may still know."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return ""
    first = next((one for one in messages if isinstance(one, dict) and one.get("role") == "user"), messages[0])
    try:
        begun = json.dumps([user, model, first], sort_keys=True)[:20_000]
    except RecursionError:
        return ""
    return hashlib.sha256(begun.encode()).hexdigest()
