"""``POST /jobs``: a prompt for a model, run on whichever node can, in the JSON of older hubs."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from aiohttp import web

from mirror.dispatch import AllFailed
from mirror.errors import (
    AllDown,
    BackendError,
    BackendRefused,
    MirrorError,
    NotAllowed,
    NowhereToRun,
    TooManyWaiting,
    UserBlocked,
)
from mirror.hub.replies import detailed, detailing, object_of
from mirror.values import Invalid

NO_NODE = "No healthy nodes available for requested model"
LARGEST_JOB = 100_000_000
"""Bytes; what a prompt may have all in all."""
_LONGEST_MODEL = 600
_LARGEST_ANSWER = 64 << 20


class InvalidJob(Invalid):
    """Not the body of a job."""

    kind = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a job asks for: ``options`` are Ollama's; ``stream``: line by line, else as one object."""

    model: str
    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True

    def body(self) -> dict[str, Any]:
        """Return what /execute of a node and /api/generate of an Ollama take."""
        return {
            "model": self.model,
            "prompt": self.prompt,
            **({"options": dict(self.options)} if self.options else {}),
            "stream": self.stream,
        }


@dataclass(frozen=True, slots=True)
class Run:
    """A job that runs: ``headers`` to be told with its answer, and the answer's ``chunks`` as they come.

    Reading the chunks raises BackendError where they end too early.
    """

    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Runs jobs on nodes."""

    def execute(self, job: Prompt, request: web.Request) -> AbstractAsyncContextManager[Run]:
        """Yield the job as it runs, once its first byte is here; leaving the context ends it. ``request`` says whose.

        Raises, on entering:
            NowhereToRun, AllDown: no node that can be used has the model.
            AllFailed: all that have it failed.
            BackendRefused: a node says that the job itself is wrong (4xx); the text is its own.
            TooManyWaiting, UserBlocked, NoTurn, NotAllowed: it may not run now, or not at all.
        """


class Jobs:
    """Answers POST /jobs. ``max_body`` is the most bytes that the body of a job has."""

    def __init__(self, executor: Executor, max_body: int = LARGEST_JOB) -> None:
        self._executor = executor
        self._max_body = max_body

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Run the job of a request and answer with what comes. A client that leaves ends it."""
        return await detailing(self._answer)(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        job = parse_job(await object_of(request, self._max_body))
        try:
            async with self._executor.execute(job, request) as run:
                if job.stream:
                    return await _streamed(request, run)
                return await _whole(run)
        except MirrorError as error:
            return _refusal(error)


def parse_job(said: object) -> Prompt:
    """Read the body of a job, or of /execute; what else it has is left out.

    Raises:
        InvalidJob: no model, no prompt, or one of them or of the others of the wrong kind.
    """
    accepted = 'a JSON object such as {"model": "llama3", "prompt": "Why is the sky blue?", "stream": false}'
    if not isinstance(said, dict):
        raise InvalidJob(_kind(said), accepted)
    model, prompt, options, stream = (said.get(key) for key in ("model", "prompt", "options", "stream"))
    if not isinstance(model, str) or not 0 < len(model.strip()) <= _LONGEST_MODEL:
        raise InvalidJob(_kind(model), "model: the name of a model")
    if not isinstance(prompt, str):
        raise InvalidJob(_kind(prompt), "prompt: a text")
    if options is not None and not isinstance(options, dict):
        raise InvalidJob(_kind(options), "options: an object")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidJob(_kind(stream), "stream: true or false")
    return Prompt(model=model.strip(), prompt=prompt, options=options or {}, stream=stream is not False)


async def _streamed(request: web.Request, run: Run) -> web.StreamResponse:
    """Send the answer as it comes; one that breaks off gets a line that says so, and no clean end."""
    kind = {"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**run.headers, **kind})
    last = b"\n"
    with suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        try:
            async for chunk in run.chunks:
                await response.write(chunk)
                last = chunk[-1:] or last
        except BackendError as error:
            said = json.dumps({"error": str(error)}).encode()
            await response.write((b"" if last == b"\n" else b"\n") + said + b"\n")
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write_eof()
    return response


async def _whole(run: Run) -> web.StreamResponse:
    """Gather the answer, so that one that breaks off is an error and not half an object."""
    body = bytearray()
    async for chunk in run.chunks:
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            raise BackendError(f"the answer of the node has more than {_LARGEST_ANSWER} bytes")
    return web.Response(body=bytes(body), headers={**run.headers, "Content-Type": "application/json"})


def _refusal(error: MirrorError) -> web.Response:
    """Return what a job that does not run is answered with: 503 where nothing says better."""
    match error:
        case NowhereToRun() | AllDown():
            return detailed(503, NO_NODE)
        case AllFailed(failures=failures):
            rows = [{"node_id": one.node_id, "message": one.message, "status": one.status} for one in failures]
            return detailed(503, {"message": str(error), "errors": rows, "job_id": str(uuid4())})
        case BackendRefused(status=status) if 400 <= status < 500:
            return detailed(status, str(error))
        case TooManyWaiting():
            return detailed(429, str(error), {"Retry-After": "5"})
        case UserBlocked() | NotAllowed():
            return detailed(403, str(error))
        case _:
            return detailed(503, str(error))


def _kind(value: object) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else type(value).__name__
