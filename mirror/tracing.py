"""Traces of requests for OpenTelemetry (extra ``otel``): which part of the mirror a request spent its time in.

Off until ``trace`` is entered; a span costs a look at a variable then. Like the log, it is one for the process. Where
spans go is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT (OpenTelemetry specification,
"Environment Variable Specification"); ``traceparent`` is that of W3C Trace Context.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

from mirror.errors import SettingsError

Value = str | int | float | bool

_NO_SPAN: AbstractContextManager[Any] = nullcontext()
_tracer: Any = None


def span(name: str, **said: Value) -> AbstractContextManager[Any]:
    """Return a span of the work in the context, below the one that is open; it ends with it, as failed if it raises."""
    return _NO_SPAN if _tracer is None else _tracer.start_as_current_span(name, attributes=said)


@contextmanager
def request_span(name: str, headers: Mapping[str, str], said: Mapping[str, Value]) -> Iterator[Any]:
    """Yield the span of a whole request, which goes on with the trace that its ``headers`` name; None while off."""
    if _tracer is None:
        yield None
        return
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind

    before = propagate.extract({key.lower(): value for key, value in headers.items()})
    with _tracer.start_as_current_span(name, context=before, kind=SpanKind.SERVER, attributes=said) as found:
        yield found


def pass_on(headers: MutableMapping[str, str]) -> None:
    """Name the open span in the headers of a request to another program, so that its trace goes on there."""
    if _tracer is not None:
        from opentelemetry import propagate

        headers.pop("traceparent", None)
        propagate.inject(headers)


@asynccontextmanager
async def trace(version: str, *, enabled: bool) -> AsyncIterator[None]:
    """Trace while the context lasts, if ``enabled``; at its end what is left is sent, in a thread.

    Raises SettingsError: the extra is not installed.
    """
    if not enabled:
        yield
        return
    global _tracer  # noqa: PLW0603  # one for the process, as the log is
    provider = _provider(version)
    _tracer = provider.get_tracer("mirror", version)
    try:
        yield
    finally:
        _tracer = None
        await asyncio.to_thread(provider.shutdown)


def _provider(version: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            "features.enable_tracing", "tracing needs the extra otel: pip install 'ollama-mirror[otel]'", "settings"
        ) from error
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before this.
    usual = Resource({"service.name": "mirror", "service.version": version})
    named = Resource.create()
    service = named.attributes.get("service.name")
    known = usual if str(service).startswith("unknown_service") else Resource({})
    provider = TracerProvider(resource=usual.merge(named).merge(known))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
