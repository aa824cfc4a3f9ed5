"""A mirror answers as its OpenAPI document says: schemathesis asks it, rightly and wrongly, the same at every run.

Coverage is by values at the edges of what the document allows, one after the other; then come some by chance, with a
seed that stays. Half of what is right is about things that there are (``tests.seeded``).
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from mirror.access import Scope
from mirror.web.openapi import document
from tests.access import made
from tests.seeded import Seeded, Seeder
from tests.standing import Standing, standing
from tests.wired import EVERYTHING

Case = schemathesis.Case[Any]
CONFIG = {
    "seed": 1,
    "suppress-health-check": ["all"],
    "request-timeout": 5,
    "max-stream-events": 1,
    "generation": {
        "max-examples": 3,
        "deterministic": True,
        "database": "none",
        "no-shrink": True,
        "with-security-parameters": False,
    },
    "phases": {phase: {"extra-data-sources": {"responses": False}} for phase in ("examples", "coverage", "fuzzing")},
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]}
    },
}
EVERYWHERE = [status_code_conformance, response_headers_conformance]
OF_WHAT_IS_ASKED = [negative_data_rejection, positive_data_acceptance, unsupported_method]
FURTHER_RULES = {
    "exportModels": "start has to be within the tar, and there has to be a model",
    "importModels": "a path that can be printed, of a folder that an Ollama keeps",
    "endKey": "dry_run goes with forget",
    "heartbeat": "an address of one machine",
    "uploadFile": "names of fields that can stand in a header",
    "deleteFile": "no batch reads it",
    "cancelBatch": "it is under way",
    "keyForm": "one thing at least that the key is good for",
    "leavePrompt": "a priority without a point or an exponent",
    "pullForm": "a job, but for pause and resume",
}
"""Operations that have rules which no schema says: what is right by the schema may be refused."""
NOT_REFUSED = {
    "listPrompts": "a number that is empty is not said",
    "importModels": "what is no tar is said in a line",
}
"""Operations that take more than the document says."""
LENIENT = {"positive_data_acceptance": FURTHER_RULES, "negative_data_rejection": NOT_REFUSED}
WHAT_OTHERS_SAY = {"ollama"}
"""Tags of what is handed on: another program says what is right there."""
FORESEEN = {
    "runJob": 503,
    "pullForm": 503,
}
"""Errors of a server that are right: what is behind the mirror cannot do what is asked."""


def tightened(said: Any) -> Any:
    """Return the document with every answer's object closed: a key that nobody wrote down is then found."""
    if isinstance(said, list):
        return [tightened(one) for one in said]
    if not isinstance(said, dict):
        return said
    found = {key: tightened(value) for key, value in said.items()}
    if "properties" in found and isinstance(found["properties"], dict) and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found


def strict() -> dict[str, Any]:
    """Return the document as it is for requests, and closed for answers."""
    whole = copy.deepcopy(document())
    del whole["components"]["schemas"]["PromptBody"]["properties"]["webhook"]  # tests ask no other machine
    del whole["paths"]["/mirror/v1/events"]  # it has no end; tests/test_event_stream.py
    asked = {name for name in whole["components"]["schemas"] if name.endswith(("Body", "Form", "Order"))}
    asked |= {"Heartbeat", "OlderName", "BatchBody"}
    schemas = whole["components"]["schemas"]
    whole["components"]["schemas"] = {k: v if k in asked else tightened(v) for k, v in schemas.items()}
    return whole


SCHEMA = schemathesis.openapi.from_dict(strict(), config=SchemathesisConfig.from_dict(CONFIG))
COUNTER = itertools.count()


@schemathesis.deserializer("application/x-ndjson")
def lines(_: Any, response: Response) -> Any:
    """Read lines as the list of them."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.deserializer("text/html", "text/plain", "text/css", "text/javascript", "application/x-pem-file")
def text(_: Any, response: Response) -> Any:
    """Read a text."""
    return response.content.decode()


@schemathesis.serializer("application/x-tar")
def tar(_: Any, value: Any) -> Any:
    """Send what is no tar."""
    return str(value).encode()


class Mirrors:
    """A mirror for each tag, so that what is done to one by one face is not what another finds."""

    def __init__(self, stack: ExitStack, folder: Callable[[str], Any]) -> None:
        self._stack = stack
        self._folder = folder
        self._known: dict[str, tuple[Standing, Seeder]] = {}
        self._seeded: tuple[str, Seeded] | None = None

    def of(self, case: Case) -> tuple[str, dict[str, str], Seeded]:
        """Return the URL, the headers of who may do everything, and what there is; anew for each operation."""
        tag, label = case.operation.tags[0], case.operation.label
        if tag not in self._known:
            folder = self._folder(tag)
            headers = {"Authorization": f"Bearer {made(folder, Scope.ADMIN)['admin']}"}
            said = {**EVERYTHING, "prompts__model": "m", "pulls__windows": [], "prompts__windows": ["00:00-24:00"]}
            one = self._stack.enter_context(standing(folder, **said))
            self._known[tag] = one, Seeder(one.at, headers)
        one, seeder = self._known[tag]
        if self._seeded is None or self._seeded[0] != label:
            self._seeded = label, one.do(lambda _: seeder.seeded())
        return one.at.mirror.url, dict(seeder.headers), self._seeded[1]


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    """Mirrors that stand until the last test."""
    with ExitStack() as stack:
        yield Mirrors(stack, tmp_path_factory.mktemp)


def about_what_is_there(case: Case, seeded: Seeded) -> None:
    """Have a request be about things that there are."""
    for name, value in seeded.path(case.path).items():
        if name in case.path_parameters:
            case.path_parameters[name] = value
    if isinstance(case.body, dict):
        case.body |= {name: value for name, value in seeded.body(case.path).items() if name in case.body}


def unforeseen(_: CheckContext, response: Response, case: Case) -> None:
    """No error of the server but those that are right."""
    if response.status_code >= 500:
        assert FORESEEN.get(case.operation.definition.raw["operationId"]) == response.status_code, response.content


@SCHEMA.exclude(method="HEAD").parametrize()
def test_answers_are_as_the_document_says(case: Case, mirrors: Mirrors) -> None:
    """Their status, media type, headers and schema; what is wrong is refused, and what is right is not.

    HEAD is made of GET by aiohttp, and so is its description: asking it too would take a third longer.
    """
    url, headers, seeded = mirrors.of(case)
    if case.meta is not None and case.meta.generation.mode.is_positive:
        if next(COUNTER) % 2:
            about_what_is_there(case, seeded)
        if isinstance(case.body, dict) and "rate" in case.body:
            case.body["rate"] = "1GB/s"  # a byte a second is right, and takes as long as that
    said, checks = case.operation.definition.raw, [*EVERYWHERE, unforeseen]
    name = said["operationId"]
    response = case.call(base_url=url, headers=headers)
    if response.content:
        checks += [content_type_conformance, response_schema_conformance]
    if not set(said["tags"]) & WHAT_OTHERS_SAY:
        checks += [one for one in OF_WHAT_IS_ASKED if name not in LENIENT.get(one.__name__, ())]
    case.validate_response(response, checks=checks, headers=headers)
