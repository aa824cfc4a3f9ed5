"""The OpenAPI document: of just the routes that there are, with their scopes, by the rules, and served."""

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from mirror.access import Scope
from mirror.proxy.table import TABLE
from mirror.web.needs import Special, row_of
from mirror.web.openapi import METHODS, catch_alls_of, document, reference, routes_of
from tests.access import made
from tests.behind import fronted
from tests.fakes.registry import running_fake_registry
from tests.support import mirrored
from tests.wired import EVERYTHING, wired

PATH = "/mirror/v1/openapi.json"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every path, method and operation."""
    for path, item in document()["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def references(said: Any) -> Iterator[str]:
    """Every reference in a part of the document."""
    if isinstance(said, dict):
        if isinstance(said.get("$ref"), str):
            yield said["$ref"]
        said = list(said.values())
    for one in said if isinstance(said, list) else ():
        yield from references(one)


async def test_it_has_every_route_and_no_other(tmp_path: Path) -> None:
    """As the composition root wires them, method by method."""
    said = {(path, method.upper()) for path, method, _ in operations()}
    async with wired(tmp_path) as app:
        there, others = routes_of(app), catch_alls_of(app)
    assert sorted(there - said) == []
    assert sorted(said - there) == []
    assert {one["path"] for one in document()["x-catch-alls"]} == others


async def test_what_is_switched_off_is_left_out_of_what_is_served(tmp_path: Path) -> None:
    """A mirror tells of what it answers, and of nothing else."""
    off = {
        "hub__enabled": False,
        "prompts__enabled": False,
        "features__enable_api_proxy": False,
        "features__enable_web_ui": False,
        "features__enable_metrics": False,
    }
    async with wired(tmp_path, **off) as app:
        left = document(routes_of(app))["paths"]
        assert {(path, method.upper()) for path, item in left.items() for method in METHODS if method in item} == (
            routes_of(app)
        )
    gone = {"/nodes", "/jobs", "/api/v1/prompt", "/v1/files", "/api/tags", "/health", "/mirror/models", "/metrics"}
    assert not gone & left.keys()
    assert {"/v2/", "/mirror/v1/models", PATH} <= left.keys()


def test_the_scope_of_each_operation_is_what_the_gate_asks() -> None:
    """By the table that the gate reads; a scope is a role of what a caller shows."""
    for path, method, said in operations():
        need = row_of(path, method.upper()).need
        assert said["x-mirror-needs"] == need.value, path
        roles = {role for one in said["security"] for shown in one.values() for role in shown}
        assert roles == ({need.value} if isinstance(need, Scope) else set()), path
        assert bool(said["security"]) is (need is not Special.NOTHING), path


def test_it_is_what_the_specification_wants() -> None:
    """OpenAPI 3.1 by its own schema, JSON schemas by theirs; no reference leads nowhere, and none is missing."""
    whole = document()
    schemathesis.openapi.from_dict(whole).validate()
    for schema in whole["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    used = set(references(whole))
    for one in used:
        assert reduce(lambda at, key: at[key], one.removeprefix("#/").split("/"), whole)
    kinds = {kind: names for kind, names in whole["components"].items() if kind != "securitySchemes"}
    assert {f"#/components/{kind}/{name}" for kind, names in kinds.items() for name in names} == used


def test_every_operation_says_what_it_is() -> None:
    """An id of its own, a sentence, a tag that is explained, all that its path leaves open, an answer that is good."""
    whole = document()
    ids = [said["operationId"] for _, _, said in operations()]
    assert sorted(ids) == sorted(set(ids))
    tags = {one["name"] for one in whole["tags"]}
    for path, method, said in operations():
        assert said["summary"], path
        assert set(said["tags"]) <= tags, path
        assert any(status[0] in "23" for status in said["responses"]), (path, method)
        every = [*whole["paths"][path].get("parameters", []), *said.get("parameters", [])]
        names = [one["$ref"].rpartition("/")[2] if "$ref" in one else None for one in every]
        known = whole["components"]["parameters"]
        found = [known[name] if name else one for name, one in zip(names, every, strict=True)]
        assert {one["name"] for one in found if one["in"] == "path"} == set(_open(path)), path


def _open(path: str) -> Iterator[str]:
    return (part.partition("}")[0] for part in path.split("{")[1:])


def test_relayed_routes_are_those_of_the_table() -> None:
    """With the fields that name models, which the rules on models are about."""
    paths = document()["paths"]
    for row in TABLE:
        for method in row.methods:
            body = paths[row.path][method.lower()].get("requestBody", {"content": {}})["content"]
            said = body.get("application/json", {}).get("schema", {}).get("properties", {})
            assert tuple(said) == (row.names if "multipart/form-data" not in body else ()), row.path


def test_the_page_is_of_the_document() -> None:
    """As `mirror api reference` prints it, with every route."""
    page = (Path(__file__).parents[1] / "docs" / "http-api.md").read_text()
    assert page == reference(), "mirror api reference > docs/http-api.md"
    assert all(f"`{method.upper()} {path}`" in page for path, method, _ in operations() if method != "head")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mirror_gives_it_to_everybody(method: str, tmp_path: Path) -> None:
    """Also where everything else needs a key; who has it already is told so."""
    made(tmp_path, *Scope)
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__anonymous="none") as (_, client):
        answer = await client.get(PATH, None, method=method)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        again = await client.get(PATH, None, method=method, **{"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")


async def test_what_is_served_is_the_document(tmp_path: Path) -> None:
    """Where every switch is on."""
    async with fronted(tmp_path, **EVERYTHING) as at:
        assert json.loads((await at.client.get(PATH)).body) == document()
