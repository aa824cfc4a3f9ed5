"""Routes of Ollama's API that are handed on: derived from the table by which they are (``mirror.proxy``)."""

from collections.abc import Iterator, Mapping
from typing import Any

from mirror.proxy.table import GENERATING, TABLE, Passed
from mirror.web.openapi.operations import Operation, operation

_ANY: dict[str, Any] = {"application/json": {}, "application/x-ndjson": {}, "text/event-stream": {}}
_OTHERS = {
    "description": "What the Ollama behind the mirror says, word by word.",
    "content": {"*/*": {}},
}
_ERRORS = (400, 403, 413, 415, 501, 502, 508)
_OF_TURNS = (429, 503)
_FORMS = {"/v1/messages": "anthropic"}


def relayed(said: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Operation]]:
    """Yield path, method and operation of every row of the table. Raises KeyError for one that no part describes."""
    for row in TABLE:
        for method in row.methods:
            yield row.path, method.lower(), _operation(row, method.lower(), said[row.path], tag)


def _operation(row: Passed, method: str, said: Mapping[str, Any], tag: str) -> Operation:
    form = _FORMS.get(row.path, "ollama" if row.path.startswith("/api/") else "openai")
    content = {} if said.get("empty") else {"content": _ANY}
    answers = {200: {"description": "As Ollama answers.", **content}, "default": _OTHERS}
    further = said.get("errors", [])
    whole: dict[str, Any] = {**said, "answers": answers, "errors": [*_ERRORS, *further]}
    if row.path in GENERATING:
        whole["errors"] += _OF_TURNS
        whole["description"] = "A model has to work for it: it waits for a turn of its user."
    if method == "head":
        whole["operationId"] = f"{said['operationId']}Head"
        whole["answers"] = {
            200: {"description": "As Ollama answers."},
            "default": {"description": "As Ollama answers."},
        }
    elif method != "get":
        whole.update(_body(row, said))
    found = operation(whole, row.path, method, tag, form)
    if method == "head":
        for one in found["responses"].values():
            one.pop("content", None)
    return found


def _body(row: Passed, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request sends; of JSON the document says only where it names models."""
    kind = said.get("body", "application/json" if row.names else None)
    if kind is None:
        return {}
    if kind != "application/json":
        return {"takes": {"also": {kind: {}}, "optional": True}}
    names = {one: {"type": "string"} for one in row.names}
    return {"takes": {"also": {kind: {"schema": {"type": "object", "properties": names}}}}}
