"""A model's name in Ollama's grammar (types/model/name.go): ``[host/][namespace/]model[:tag]``."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from mirror.values.invalid import InvalidModelName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z", re.ASCII)

_ACCEPTED = {
    "host": "a host of letters, digits, '_', '-', '.' and ':' (1 to 350), not beginning with '-', '.' or ':'",
    "namespace": "a namespace of letters, digits, '_' and '-' (1 to 80), not beginning with '-'",
    "model": "a model of letters, digits, '_', '-' and '.' (1 to 80), not beginning with '-' or '.'",
    "tag": "a tag of letters, digits, '_', '-' and '.' (1 to 80), not beginning with '-' or '.'",
}


@dataclass(frozen=True, slots=True, order=True)
class ModelName:
    """A full name: each part is valid, so a path built from the four parts stays in its folder.

    Letter case is kept as written; ``folded`` is the key for comparing, because Ollama rewrites the case of
    each part on its own to match what it already has (server/routes.go, getExistingName).
    """

    host: str
    namespace: str
    model: str
    tag: str

    def __post_init__(self) -> None:
        for part, pattern in (("host", _HOST), ("namespace", _NAMESPACE), ("model", _PART), ("tag", _PART)):
            if pattern.match(getattr(self, part)) is None:
                raise InvalidModelName(getattr(self, part), _ACCEPTED[part])

    @classmethod
    def parse(cls, text: str, *, host: str = DEFAULT_HOST) -> Self:
        """Read a name as a user types it; missing parts get Ollama's defaults, ``host`` the one given.

        A ``scheme://`` before a host is accepted and dropped, as Ollama does.

        Raises:
            InvalidModelName: where a part is empty, too long or has a character Ollama refuses; digests
                (``name@sha256:...``) and more than three path segments among them.
        """
        path, tag = text, DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):
            path, _, tag = text.rpartition(":")
        before, has_namespace, model = path.rpartition("/")
        given_host, has_host, namespace = before.rpartition("/")
        _, has_scheme, bare_host = given_host.partition("://")
        try:
            return cls(
                (bare_host if has_scheme else given_host) if has_host else host,
                namespace if has_namespace else DEFAULT_NAMESPACE,
                model,
                tag,
            )
        except InvalidModelName as error:
            raise InvalidModelName(text, f"[host/][namespace/]model[:tag] with {error.accepted}") from error

    @property
    def repository(self) -> str:
        """``namespace/model``, the path by which a registry knows it."""
        return f"{self.namespace}/{self.model}"

    @property
    def folded(self) -> "ModelName":
        """The same name with every part in lower case: equal for names that differ in letter case only."""
        return _folded(self)

    @property
    def short(self) -> str:
        """The name as Ollama displays it: defaults for host and namespace left out, the tag always shown."""
        if self.host.lower() != DEFAULT_HOST:
            return str(self)
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    def with_tag(self, tag: str) -> "ModelName":
        """Return the same model under another tag. Raises InvalidModelName."""
        return replace(self, tag=tag)

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


@lru_cache(maxsize=4096)
def _folded(name: ModelName) -> ModelName:
    return ModelName(name.host.lower(), name.namespace.lower(), name.model.lower(), name.tag.lower())
