"""Traces, received by a collector that speaks OpenTelemetry's protocol over HTTP."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mirror import tracing
from tests.behind import asked, fronted
from tests.fakes.registry import running_fake_registry
from tests.hub import serving_app
from tests.support import add_blob, blob_path, mirrored
from tests.test_turns import GENERATE

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """What has come in: spans by name."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        """POST /v1/traces."""
        raw = await request.read()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        for group in ExportTraceServiceRequest.FromString(raw).resource_spans:
            self.services |= {one.value.string_value for one in group.resource.attributes if one.key == "service.name"}
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def below(self, name: str) -> set[str]:
        """The names of the spans that are below those of a name, however deep."""
        inside, found = {one.span_id for one in self.spans if one.name == name}, set[str]()
        while more := [one for one in self.spans if one.parent_span_id in inside and one.span_id not in inside]:
            inside |= {one.span_id for one in more}
            found |= {one.name for one in more}
        return found


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector to which the variables of this process lead."""
    one, app = Collector(), web.Application()
    app.add_routes([web.post("/v1/traces", one.take)])
    async with serving_app(app) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")  # so that all of it is sent at the end
        yield one


async def test_a_pull_and_an_answer_are_traced_through_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access, store, upstream and fill; turn and backend, where the trace goes on."""
    async with collecting(monkeypatch) as collector:
        async with fronted(tmp_path, features__enable_tracing=True) as at:
            _, digest = add_blob(at.registry, 1000)
            await at.client.manifest()
            for _ in range(2):
                assert (await at.client.get(blob_path(digest))).status == 200
            assert (await asked(at.client, "/api/generate", GENERATE, traceparent=PARENT))[0] == 200
            sent = at.ollama.asked[-1].headers["traceparent"]
        names = {one.name for one in collector.spans}
        assert collector.services == {"mirror"}
        assert {"access", "fill", "store"} <= collector.below(next(one for one in names if "/blobs/" in one))
        assert {"access", "store", "upstream"} <= collector.below(next(one for one in names if "/manifests/" in one))
        assert {"access", "turn", "backend"} <= collector.below("POST /api/generate")
        root = next(one for one in collector.spans if one.name == "POST /api/generate")
        assert (root.trace_id.hex(), root.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
        backend = next(one for one in collector.spans if one.name == "backend" and one.trace_id == root.trace_id)
        assert sent.split("-")[1:3] == [root.trace_id.hex(), backend.span_id.hex()]
        status = {one.key: one.value.int_value for one in root.attributes}["http.response.status_code"]
        assert status == 200


async def test_nothing_is_traced_unless_somebody_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a trace that comes in is passed on as it is."""
    async with collecting(monkeypatch) as collector:
        async with fronted(tmp_path) as at:
            assert (await asked(at.client, "/api/generate", GENERATE, traceparent=PARENT))[0] == 200
            assert at.ollama.asked[-1].headers["traceparent"] == PARENT
        assert collector.spans == []
        assert tracing.span("x") is tracing.span("y")


async def test_a_collector_that_is_away_costs_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it hold up the end for long."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        async with mirrored(tmp_path, fake, features__enable_tracing=True) as (_, client):
            await client.manifest()
