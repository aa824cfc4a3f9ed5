"""Patterns of model names: a name as a user types it, with ``*`` and ``?`` for what is left open."""

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Self

from mirror.values.invalid import Invalid, InvalidPattern
from mirror.values.name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName

_WILD = re.compile(r"[*?]")
_ANYTHING = re.compile("")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """Matches models by their names, whatever the letter case; a wildcard stays within its part of the name.

    Parts that are left out have Ollama's defaults, as in a name: ``qwen3`` is ``qwen3:latest`` alone, ``qwen3:*`` all
    of its tags, ``*:*`` every model of the default host's library, and ``*/*/*:*`` every model there is.
    """

    text: str
    _parts: tuple[re.Pattern[str], ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, host: str = DEFAULT_HOST, any_tag: bool = False) -> Self:
        """Read a pattern; ``host`` is the one meant where none is named. Raises InvalidPattern.

        ``any_tag``: without a tag every tag is meant, and ``*`` alone is every model there is. So rules on models are
        read: ``llama3.2`` means all of it.
        """
        text = text.strip()
        if any_tag and text == "*":
            return cls(text, (_ANYTHING,) * 4)
        # What a wildcard may stand for is always valid as an "x", so a pattern is valid where such a name is.
        standing = _WILD.sub("x", text)
        try:
            ModelName.parse(standing, host=host)
        except Invalid as error:
            raise InvalidPattern(text, "a model's name, in which * and ? stand for anything: qwen3:*") from error
        path, tag = text, "*" if any_tag else DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):
            path, _, tag = text.rpartition(":")
        *before, model = path.rpartition("://")[2].split("/")
        defaults = [host, DEFAULT_NAMESPACE]
        parts = (*defaults[: 2 - len(before)], *before, model, tag)
        return cls(text, tuple(re.compile(translate(part), re.IGNORECASE) for part in parts))

    def name(self, *, host: str = DEFAULT_HOST) -> ModelName | None:
        """Return the one model that is meant; None where a wildcard leaves something open."""
        return None if _WILD.search(self.text) else ModelName.parse(self.text, host=host)

    def matches(self, name: ModelName) -> bool:
        """Say whether ``name`` is meant."""
        parts = (name.host, name.namespace, name.model, name.tag)
        return all(pattern.match(part) for pattern, part in zip(self._parts, parts, strict=True))

    def __str__(self) -> str:
        return self.text
