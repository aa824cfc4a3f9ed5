"""Pages and what their forms send, from the short form of the parts to that of OpenAPI."""

from collections.abc import Iterator, Mapping
from typing import Any

from mirror.web.openapi.operations import Operation, operation
from mirror.web.pages.forms import TOKEN

_PAGE = {200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}}
_ON = {303: {"description": "It is done.", "headers": {"Location": {"schema": {"type": "string"}}}}}
_REFUSED = (400, 403)


def pages(said: Mapping[str, Mapping[str, Any]], tag: str) -> Iterator[tuple[str, str, Operation]]:
    """Yield path, method and operation of every page."""
    for path, one in said.items():
        yield path, "get", operation({"answers": _PAGE, **one}, path, "get", tag, "page")


def forms(said: Mapping[str, Mapping[str, Any]], tag: str) -> Iterator[tuple[str, str, Operation]]:
    """Yield path, method and operation of every form."""
    for path, one in said.items():
        whole = {"answers": _ON, **one, "errors": [*_REFUSED, *one.get("errors", ())], "takes": _fields(one)}
        yield path, "post", operation(whole, path, "post", tag, "page")


def _fields(one: Mapping[str, Any]) -> dict[str, Any]:
    token = {"type": "string", "description": "What the page had for its forms."}
    fields = {name: {"type": "string", "minLength": 1, **said} for name, said in one["fields"].items()}
    fields |= {name: {"type": "string"} for name in one.get("may", ())}
    schema = {"type": "object", "required": [TOKEN, *one["fields"]], "properties": {TOKEN: token, **fields}}
    return {"also": {"application/x-www-form-urlencoded": {"schema": schema}}}
