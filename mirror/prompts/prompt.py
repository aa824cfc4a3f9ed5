"""A prompt job: what is asked of which model by whom, and how far it is. Pure."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from mirror.config import Run
from mirror.config.webhook import webhook_url
from mirror.errors import MirrorError
from mirror.values import Invalid

LARGEST_PRIORITY = 1000
_LONGEST_MODEL = 600
_LONGEST_URL = 2000
_KNOWN = frozenset(
    {"prompt", "messages", "model", "system", "options", "images", "priority", "deadline", "run", "webhook"}
)


class InvalidPrompt(Invalid):
    """Not the body of a prompt job."""

    kind = "prompt"


class NoSuchPrompt(MirrorError):
    """No prompt job of that id is known to who asks for it."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"there is no prompt {id_[:100]}")


class TooManyPrompts(MirrorError):
    """As many prompt jobs are under way as may be; nothing was added."""

    permanent = False


class PromptsUnusable(MirrorError):
    """The database of the prompt jobs cannot be read or written; nothing has changed."""

    permanent = False


class State(StrEnum):
    """How far a prompt job is."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in UNDER_WAY


UNDER_WAY = frozenset({State.QUEUED, State.PROCESSING})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a batch, counted from 1; ``custom_id`` is what its client calls it."""

    batch: str
    number: int
    custom_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a client asks: ``body`` is what an Ollama is sent, less the model: a prompt or messages, and what goes with
    them, or what ``path`` takes, which a ``line`` of a batch names. ``cost`` is what it may come to, in tokens made.
    ``webhook`` is a URL that is told how it ended, ``asker`` who the policy is asked about.
    """

    model: str
    body: Mapping[str, Any]
    cost: float
    priority: int = 0
    deadline: datetime | None = None
    run: Run = Run.NOW
    webhook: str | None = field(default=None, repr=False)
    path: str | None = None
    line: Line | None = None
    asker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt job, without its texts, which have ``size`` bytes. ``tries`` counts how often it was begun; it waits
    until ``not_before``, and fails at its ``deadline``. Instants are in UTC.
    """

    id: str
    user: str
    model: str
    cost: float
    size: int
    created_at: datetime
    updated_at: datetime
    state: State = State.QUEUED
    priority: int = 0
    deadline: datetime | None = None
    tries: int = 0
    not_before: datetime | None = None
    run: Run = Run.NOW
    webhook: str | None = field(default=None, repr=False)
    path: str | None = None
    batch: str | None = None
    asker: str | None = None
    error: str | None = None

    @property
    def order(self) -> tuple[int, datetime, str]:
        """What those that wait are sorted by: the priority, then the age."""
        return -self.priority, self.created_at, self.id

    def ready(self, now: datetime) -> bool:
        """Whether it may be begun."""
        return self.state is State.QUEUED and (self.not_before is None or self.not_before <= now)


def parse_prompt(said: object, default_model: str) -> Asked:
    """Read the body of a submission, of which no text is longer than the body may be.

    Raises:
        InvalidPrompt: neither a prompt nor messages, or both; a key that is not known; a value of the wrong kind.
    """
    if not isinstance(said, dict):
        raise InvalidPrompt(_kind(said), 'a JSON object such as {"prompt": "Why is the sky blue?"}')
    for key in said.keys() - _KNOWN:
        raise InvalidPrompt(str(key), f"the keys {', '.join(sorted(_KNOWN))}")
    model = _text(said, "model") or default_model
    if len(model) > _LONGEST_MODEL or not model.isprintable():
        raise InvalidPrompt(model, f"model: a name of at most {_LONGEST_MODEL} printable characters")
    body = _chat(said) if said.get("messages") is not None else _plain(said)
    options = said.get("options")
    if options is not None and not isinstance(options, dict):
        raise InvalidPrompt(_kind(options), "options: an object")
    if options:
        body["options"] = options
    return Asked(
        model=model,
        body=body,
        cost=_cost(body),
        priority=_priority(said.get("priority")),
        deadline=_instant(said.get("deadline")),
        run=_run(said.get("run")),
        webhook=_webhook(said.get("webhook")),
    )


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what /api/generate takes."""
    prompt = _text(said, "prompt")
    if not prompt.strip():
        raise InvalidPrompt(_kind(said.get("prompt")), "prompt: a text that is not empty, or messages")
    body: dict[str, Any] = {"prompt": prompt}
    if system := _text(said, "system"):
        body["system"] = system
    if images := said.get("images"):
        if not isinstance(images, list) or not all(isinstance(one, str) for one in images):
            raise InvalidPrompt(_kind(images), "images: a list of images in base64")
        body["images"] = images
    return body


def _chat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what /api/chat takes."""
    messages = said["messages"]
    for key in ("prompt", "images"):
        if said.get(key) is not None:
            raise InvalidPrompt(key, "either a prompt, or messages, which may have images of their own")
    sound = isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages)
    if not sound or not all(isinstance(one.get("role"), str) for one in messages):
        raise InvalidPrompt(_kind(messages), 'messages: a list such as [{"role": "user", "content": "Why?"}]')
    system = _text(said, "system")
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages]}


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidPrompt(_kind(value), f"{key}: a text")
    return value or ""


def _priority(said: object) -> int:
    if said is None:
        return 0
    if type(said) is not int or abs(said) > LARGEST_PRIORITY:
        raise InvalidPrompt(str(said)[:100], f"priority: a whole number from -{LARGEST_PRIORITY} to {LARGEST_PRIORITY}")
    return said


def _run(said: object) -> Run:
    if said is None:
        return Run.NOW
    if isinstance(said, str) and said in list(Run):
        return Run(said)
    raise InvalidPrompt(str(said)[:100], f"run: {', '.join(Run)}")


def _webhook(said: object) -> str | None:
    """Return a URL that is to be told; one that is none is not repeated, as it may hold a secret."""
    if said is None:
        return None
    with suppress(ValueError):
        if isinstance(said, str) and len(said) <= _LONGEST_URL:
            return webhook_url(said)
    raise InvalidPrompt("***", f"webhook: an http or https URL of at most {_LONGEST_URL} characters")


def _instant(said: object) -> datetime | None:
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said) if isinstance(said, str) else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidPrompt(str(said)[:100], "deadline: an instant with its zone, such as 2026-02-21T12:00:00+00:00")


def _cost(body: Mapping[str, Any]) -> float:
    """Return what an answer may come to: what is made of it is most, and a token read costs a tenth."""
    options = body.get("options") or {}
    limit = options.get("num_predict")
    made = min(limit, 256) if type(limit) is int and limit > 0 else 256
    texts = [body.get("prompt"), body.get("system"), *(one.get("content") for one in body.get("messages", ()))]
    return made + sum(len(one) for one in texts if isinstance(one, str)) / 40


def _kind(value: object) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else type(value).__name__
