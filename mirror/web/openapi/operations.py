"""Operations, from the short form of the parts to that of OpenAPI.

What parts may write shorter: ``answers`` are responses, where a name alone is JSON of that schema; ``lines`` is the
schema of each line of an answer; ``takes`` is the schema of a JSON body; ``errors`` are statuses, in the form of the
part; ``parameters`` may be names. ``head: false`` says that a GET has no HEAD beside it. Who may ask, and how they are
refused, is in no part: it is what ``mirror.web.needs`` says.
"""

from collections.abc import Mapping
from typing import Any

from mirror.access import Scope
from mirror.web.needs import row_of
from mirror.web.openapi.errors import add_errors, form_of, refused, shared

Said = Mapping[str, Any]
Operation = dict[str, Any]


def operation(said: Said, path: str, method: str, tag: str, form: str) -> Operation:
    """Return one operation; ``form`` is that of the errors of its face."""
    row = row_of(path, method.upper())
    responses = _responses(said)
    add_errors(responses, said.get("errors", ()), form, empty=said.get("empty_errors", False))
    if said.get("errors_of_others"):
        add_errors(responses, (400,), form)
        responses["4XX"] = {**responses["400"], "description": "What a node said is wrong with it."}
    add_errors(responses, refused(row, method), form_of(path), empty=said.get("empty_errors", False))
    need = row.need.value
    found: Operation = {
        "operationId": said["operationId"],
        "summary": said["summary"],
        "tags": said.get("tags", [tag]),
        "x-mirror-needs": need,
        "security": _security(row.need if isinstance(row.need, Scope) else None, open_=need == "nothing"),
        "responses": responses,
    }
    if "description" in said:
        found["description"] = said["description"]
    if "needs_more" in said:
        found["x-mirror-needs-more"] = said["needs_more"]
    if "parameters" in said:
        found["parameters"] = parameters(said["parameters"])
    if "takes" in said:
        found["requestBody"] = _body(said["takes"])
    return found


def head_of(get: Operation) -> Operation:
    """Return the HEAD that aiohttp has beside a GET: the same without its body."""
    name = get["operationId"]
    responses = {
        status: {key: value for key, value in one.items() if key != "content"}
        for status, one in get["responses"].items()
    }
    head = {**get, "operationId": f"{name}Head", "summary": "The head of what GET answers", "responses": responses}
    head.pop("description", None)
    return head


def with_shared_errors(found: Operation) -> Operation:
    """Return an operation with references for the errors that others have too."""
    return {**found, "responses": shared(found["responses"])}


def parameters(said: list[str | Said]) -> list[Any]:
    """Return parameters, of which names alone are those of components."""
    return [{"$ref": f"#/components/parameters/{one}"} if isinstance(one, str) else one for one in said]


def _responses(said: Said) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for status, answer in said.get("answers", {}).items():
        if isinstance(answer, str):
            content = {"application/json": {"schema": {"$ref": answer}}}
            found[str(status)] = {"description": f"{said['summary']}.", "content": content}
        else:
            found[str(status)] = dict(answer)
    if "lines" in said:
        lines = {"schema": {"type": "array", "items": {"$ref": said["lines"]}}}
        found["200"] = {"description": "A JSON object for each line.", "content": {"application/x-ndjson": lines}}
    return found


def _body(takes: str | Said) -> dict[str, Any]:
    if isinstance(takes, str):
        takes = {"schema": takes}
    content: dict[str, Any] = {}
    if "schema" in takes:
        content["application/json"] = {"schema": {"$ref": takes["schema"]}}
    if "form" in takes:
        content["multipart/form-data"] = {"schema": {"$ref": takes["form"]}}
    content |= takes.get("also", {})
    return {"required": not takes.get("optional", False), "content": content}


def _security(scope: Scope | None, *, open_: bool) -> list[dict[str, list[str]]]:
    """Return what a caller may show. Nothing is among it: what needs a key says a mirror's settings and its keys."""
    if open_:
        return []
    roles = [scope.value] if scope is not None else []
    return [{}, {"bearer": roles}, {"basic": roles}]
