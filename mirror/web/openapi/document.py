"""The document: its parts read and put together (OpenAPI 3.1.0). Each part is a face, by hand, in ``parts``."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mirror import __version__
from mirror.web.openapi.errors import components as errors
from mirror.web.openapi.forms import forms, pages
from mirror.web.openapi.known import KNOWN
from mirror.web.openapi.operations import Operation, head_of, operation, parameters, with_shared_errors
from mirror.web.openapi.relayed import relayed

Document = dict[str, Any]
Routes = frozenset[tuple[str, str]]
"""Pairs of a path and a method in upper case."""

PARTS = (
    *("status", "models", "store", "queue", "turns", "keys"),
    *("registry", "ollama", "prompts", "batches", "hub", "older", "pages"),
)
METHODS = ("get", "head", "post", "put", "patch", "delete")


def document(routes: Routes | None = None) -> Document:
    """Return the document of everything that a mirror answers, or of those ``routes`` that one has."""
    whole = _whole()
    if routes is None:
        return whole
    paths = {path: _left(path, item, routes) for path, item in whole["paths"].items()}
    return {**whole, "paths": {path: item for path, item in paths.items() if any(one in item for one in METHODS)}}


@cache
def _whole() -> Document:
    about = _read("about")
    found: Document = {**about, "tags": [], "paths": {}}
    found["info"] = {**about["info"], "version": __version__}
    for name in PARTS:
        part = _read(name)
        found["tags"].append(part["tag"])
        for path, item in _items(part):
            known = found["paths"].setdefault(path, {})
            _add(known, item, f"{name}: {path}")
        for kind, components in _components(part):
            _add(found["components"].setdefault(kind, {}), components, f"{name}: {kind}")
    found["paths"] = {path: _in_order(found["paths"][path]) for path in sorted(found["paths"])}
    _add(found["components"].setdefault("responses", {}), _errors_in(found["paths"]), "errors")
    whole: Document = _written_out(found)
    return whole


def _items(part: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    tag, form = part["tag"]["name"], part.get("errors", "problem")
    for path, said in part.get("paths", {}).items():
        item: dict[str, Any] = {"parameters": parameters(said["parameters"])} if "parameters" in said else {}
        for method in METHODS:
            if method in said:
                item |= _with_head(method, operation(said[method], path, method, tag, form), said[method])
        yield path, item
    for path, method, found in (*pages(part.get("pages", {}), tag), *forms(part.get("forms", {}), tag)):
        yield path, _with_head(method, found, {})
    for path, method, found in relayed(part["relayed"], tag) if "relayed" in part else ():
        yield path, {method: found}


def _with_head(method: str, found: Operation, said: Mapping[str, Any]) -> dict[str, Operation]:
    return {method: found, "head": head_of(found)} if method == "get" and said.get("head", True) else {method: found}


def _components(part: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what others refer to. An answer has all of its keys, a line of many those that it is about."""
    yield from part.get("components", {}).items()
    yield "schemas", part.get("schemas", {})
    for name, fields in part.get("answer_schemas", {}).items():
        yield "schemas", {name: {"type": "object", "required": list(fields), "properties": fields}}
    for name, said in part.get("step_schemas", {}).items():
        fields = {key: value for key, value in said.items() if key != "description"}
        yield "schemas", {name: {"type": "object", "description": said["description"], "properties": fields}}


def _add(known: dict[str, Any], more: Mapping[str, Any], where: str) -> None:
    """Add what nobody said before. Raises ValueError: two parts say the same thing."""
    if twice := known.keys() & more.keys():
        raise ValueError(f"{where}: {', '.join(sorted(twice))} is said twice")
    known.update(more)


def _left(path: str, item: Mapping[str, Any], routes: Routes) -> dict[str, Any]:
    return {key: one for key, one in item.items() if key not in METHODS or (path, key.upper()) in routes}


def _in_order(item: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: with_shared_errors(item[key]) for key in METHODS if key in item}
    return {"parameters": item["parameters"], **found} if "parameters" in item else found


def _errors_in(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of all errors that an operation refers to."""
    every = (
        one for item in paths.values() for key in METHODS if key in item for one in item[key]["responses"].values()
    )
    names = {one["$ref"].rpartition("/")[2] for one in every if "$ref" in one}
    return {name: one for name, one in errors().items() if name in names}


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((files("mirror.web.openapi") / "parts" / f"{name}.yaml").read_text())
    return found


def _written_out(said: Any) -> Any:
    """Return the same with every short reference and every list of values that the code knows written out."""
    if isinstance(said, list | tuple):
        return [_written_out(one) for one in said]
    if not isinstance(said, dict):
        return said
    found = {key: _written_out(value) for key, value in said.items()}
    if isinstance(found.get("enum"), str):
        found["enum"] = list(KNOWN[found["enum"]])
    reference = found.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        found["$ref"] = f"#/components/schemas/{reference}"
    return found
