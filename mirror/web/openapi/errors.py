"""How errors are described: the form of each face, and what the gate may answer before a face is asked."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from mirror.web.needs import Route, Special

Responses = dict[str, dict[str, Any]]

FORMS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "problem": ("Problem", "application/problem+json", "Problem"),
        "oci": ("Oci", "application/json", "OciErrors"),
        "ollama": ("Ollama", "application/json", "OllamaError"),
        "openai": ("OpenAi", "application/json", "OpenAiError"),
        "anthropic": ("Anthropic", "application/json", "AnthropicError"),
        "detail": ("Hub", "application/json", "Detail"),
        "page": ("Page", "text/html", "Text"),
        "text": ("Text", "text/plain", "Text"),
    }
)
"""By name: what their components begin with, their media type and their schema."""
_READ = ("get", "head")
_FIRST_ERROR = 400
_AGAIN = (429, 503)
_SENTENCE = {"schema": {"type": "string"}, "description": "What is wrong, where there is no body."}
_EMPTY = {"application/octet-stream": {"schema": {"type": "string", "maxLength": 0}}}


def form_of(path: str) -> str:
    """Return the form in which the gate refuses a request of ``path`` (``mirror.web.refusals``)."""
    if path == "/v2" or path.startswith("/v2/"):
        return "oci"
    if path == "/v1/messages":
        return "anthropic"
    return "ollama" if path.startswith("/api/") else "openai" if path.startswith("/v1/") else "problem"


def refused(row: Route, method: str) -> tuple[int, ...]:
    """Return the statuses by which the gate may refuse a request (``mirror.web.gate``)."""
    found = {429} if row.counted else set()
    if method not in _READ:
        found.add(403)  # a page of another site, or a name that is not the mirror's
    if row.need is not Special.NOTHING:
        found |= {401, 429, 503}
    if not isinstance(row.need, Special):
        found.add(403)
    return tuple(sorted(found))


def add_errors(responses: Responses, statuses: Iterable[int], form: str, *, empty: bool = False) -> None:
    """Add the errors of a form; to a status that has content already that of this form is added.

    ``empty``: such an error may also have no body, and the sentence in a header.
    """
    for status in statuses:
        added = response(status, form)
        if empty:
            added["content"] |= _EMPTY
            added.setdefault("headers", {})["X-Mirror-Error"] = _SENTENCE
        known = responses.setdefault(str(status), added)
        known.setdefault("content", {})
        known["content"] = {**known["content"], **added["content"]}


def response(status: int, form: str) -> dict[str, Any]:
    """Return the description of one error."""
    _, kind, schema = FORMS[form]
    again = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}} if status in _AGAIN else {}
    said = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    found = {"description": f"{HTTPStatus(status).phrase}.", "content": {kind: said}}
    return {**found, "headers": again} if again else found


def shared(responses: Responses) -> Responses:
    """Return responses in their order, those that are one face's error and nothing else as references."""
    return {status: _shared(status, one) for status, one in sorted(responses.items())}


def components() -> Responses:
    """Return what ``shared`` refers to."""
    return {
        f"{name}{status.value}": response(status, form)
        for form, (name, _, _) in FORMS.items()
        for status in HTTPStatus
        if status >= _FIRST_ERROR
    }


def _shared(status: str, one: dict[str, Any]) -> dict[str, Any]:
    for form, (name, _, _) in FORMS.items():
        if status.isdigit() and int(status) >= _FIRST_ERROR and one == response(int(status), form):
            return {"$ref": f"#/components/responses/{name}{status}"}
    return one
