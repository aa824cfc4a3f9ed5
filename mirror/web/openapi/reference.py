"""The document on one page, for people: made from it, so that it is never another."""

from collections.abc import Iterator, Mapping
from typing import Any

from mirror.web.openapi.document import METHODS, Document, document

_HEAD = """# The HTTP API

This page is what `mirror api reference` prints. The same for programs is `GET /mirror/v1/openapi.json` of a running
mirror, which leaves out what its settings switch off, and `mirror api schema` of any: an OpenAPI 3.1 document, of which
clients can be made.
"""
_NEEDS = {"nothing": "", "looking": "looking"}
_NOT_SHOWN = ("head",)


def reference() -> str:
    """Return the page, in Markdown."""
    whole = document()
    parts = [_HEAD, whole["info"]["description"].rstrip() + "\n"]
    for tag in whole["tags"]:
        parts += _section(whole, tag)
    parts += ["## All other paths", "", "| path | answers | errors |", "|---|---|---|"]
    for one in whole["x-catch-alls"]:
        answers = ", ".join(f"{method} {status}" for method, status in one["answers"].items())
        parts.append(f"| `{one['path']}` | {answers} | {one['errors']} |")
    return "\n".join(parts) + "\n"


def _section(whole: Document, tag: Mapping[str, Any]) -> Iterator[str]:
    further = tag.get("externalDocs", {}).get("url")
    yield f"## {tag['name'].capitalize()}\n"
    yield tag["description"].rstrip() + (f" [Its own documentation]({further})." if further else "") + "\n"
    yield "| route | what | needs | takes | answers |\n|---|---|---|---|---|"
    for path, item in whole["paths"].items():
        for method in METHODS:
            if method in item and method not in _NOT_SHOWN and tag["name"] in item[method]["tags"]:
                yield _row(whole, path, method, item)
    yield ""


def _row(whole: Document, path: str, method: str, item: Mapping[str, Any]) -> str:
    said = item[method]
    statuses = ", ".join(status for status in said["responses"])
    cells = (
        f"`{method.upper()} {path}`",
        said["summary"],
        _NEEDS.get(said["x-mirror-needs"], said["x-mirror-needs"]),
        ", ".join(_takes(whole, said)),
        statuses,
    )
    return "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"


def _takes(whole: Document, said: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a caller may say beside the path: the query, and the fields of the body, those needed first."""
    for one in said.get("parameters", ()):
        found = _resolved(whole, one)
        if found["in"] == "query":
            yield f"`?{found['name']}=`"
    for kind, content in said.get("requestBody", {"content": {}})["content"].items():
        schema = _resolved(whole, content.get("schema", {}))
        fields, required = schema.get("properties", {}), schema.get("required", [])
        yield from (f"`{name}`" for name in required)
        yield from (f"`{name}`?" for name in fields if name not in required)
        if not fields:
            yield kind if "json" not in kind else "nothing"


def _resolved(whole: Document, said: Mapping[str, Any]) -> Mapping[str, Any]:
    at: Mapping[str, Any] = said
    while "$ref" in at:
        _, _, kind, name = at["$ref"].split("/")
        at = whole["components"][kind][name]
    return at
