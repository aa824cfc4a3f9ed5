"""POST /jobs: its body, its answers, its errors, in the JSON of older hubs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import AllDown, BackendDown, BackendRefused, MirrorError, NoTurn, NowhereToRun, TooManyWaiting
from mirror.hub import AllFailed, Executor, Failure, InvalidJob, Jobs, Prompt, Run, parse_job
from mirror.ollama import Backend
from tests.behind import asked, lines_of
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.ollama_trouble import Trouble
from tests.hub import all_of, hub
from tests.support import SOON_S, Machine


class OneOllama:
    """Runs jobs on one Ollama, or refuses them all."""

    def __init__(self, url: str, refuses: MirrorError | None = None) -> None:
        self.backend = Backend(url, 2.0)
        self.refuses = refuses
        self.jobs: list[Prompt] = []

    def execute(self, job: Prompt, request: web.Request) -> AbstractAsyncContextManager[Run]:
        """As Executor."""
        return self._execute(job)

    @asynccontextmanager
    async def _execute(self, job: Prompt) -> AsyncIterator[Run]:
        self.jobs.append(job)
        if self.refuses is not None:
            raise self.refuses
        body = json.dumps(job.body()).encode()
        async with (
            self.backend.asked("POST", "/api/generate", {"Content-Type": "application/json"}, body) as answer,
            aclosing(self.backend.chunks(answer)) as chunks,
        ):
            yield Run(chunks, {"X-Mirror-Node": "gpu1"})


@asynccontextmanager
async def running(
    folder: Path, refuses: MirrorError | None = None
) -> AsyncIterator[tuple[Machine, FakeOllama, OneOllama]]:
    """A hub whose jobs run on a fake Ollama that has the model ``m``."""
    async with running_fake_ollama(folder / "ollama") as fake:
        fake.folder.add("m")
        one = OneOllama(fake.url, refuses)
        executor: Executor = one
        try:
            async with hub(folder, jobs=Jobs(executor)) as (client, _):
                yield client, fake, one
        finally:
            await one.backend.close()


PROMPT = "Why is the sky blue?"
ASK = {"model": "m", "prompt": PROMPT, "options": {"temperature": 0.7}}


async def test_one_object_where_no_stream_is_wanted(tmp_path: Path) -> None:
    """As the README's first example asks for it."""
    async with running(tmp_path) as (client, fake, one):
        status, said = await asked(client, "/jobs", {**ASK, "stream": False})
        assert (status, said["response"], said["done"]) == (200, "one two three four", True)
        assert one.jobs == [Prompt(model="m", prompt=PROMPT, options={"temperature": 0.7}, stream=False)]
        assert json.loads(fake.asked[0].body) == {**ASK, "stream": False}


async def test_lines_as_they_come_by_default(tmp_path: Path) -> None:
    """The first is here before the second is said; who leaves ends the job."""
    async with running(tmp_path) as (client, fake, _), asyncio.timeout(SOON_S):
        fake.pace.hold()
        fake.pace.release()
        async with client.session.post(client.url("/jobs"), json=ASK) as answer:
            lines = lines_of(answer)
            assert (await anext(lines))["response"] == "one"
            assert fake.pace.said == 1
            headers = answer.headers
            assert (headers["Content-Type"], headers["X-Accel-Buffering"]) == ("application/x-ndjson", "no")
            assert headers["X-Mirror-Node"] == "gpu1"
        await fake.troubles.wait_for(lambda: fake.asked[0].left)


async def test_a_stream_that_breaks_off_says_so_and_has_no_clean_end(tmp_path: Path) -> None:
    """Half an answer must not be taken for a whole one, by whatever the client looks at."""
    async with running(tmp_path) as (client, fake, _), asyncio.timeout(SOON_S):
        fake.troubles.add(Trouble.CUT, "/api/generate", after=2)
        async with client.session.post(client.url("/jobs"), json=ASK) as answer:
            said, broken = await all_of(answer)
        assert broken
        assert [line.get("response") for line in said[:2]] == ["one", " two"]
        assert [list(line) for line in said[2:]] == [["error"]]


async def test_an_object_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    """It is gathered first, so its status can say so still."""

    class Cut(OneOllama):
        @asynccontextmanager
        async def _execute(self, job: Prompt) -> AsyncIterator[Run]:
            async def chunks() -> AsyncIterator[bytes]:
                yield b'{"model": "m", '
                raise BackendDown("gone")

            yield Run(chunks())

    one = Cut("http://127.0.0.1:9")
    try:
        async with hub(tmp_path, jobs=Jobs(one)) as (client, _):
            assert await asked(client, "/jobs", {**ASK, "stream": False}) == (503, {"detail": "gone"})
    finally:
        await one.backend.close()


NONE = {"detail": "No healthy nodes available for requested model"}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (NowhereToRun("no Ollama has m"), 503, NONE),
        (AllDown("gpu1: no answer"), 503, NONE),
        (NoTurn("waited"), 503, {"detail": "waited"}),
        (TooManyWaiting("ann", 5, own=True), 429, {"detail": "5 requests of this user are waiting already"}),
        (BackendRefused(404, "model 'm' not found"), 404, {"detail": "model 'm' not found"}),
        (BackendRefused(500, "the runner has stopped"), 503, {"detail": "the runner has stopped"}),
    ],
)
async def test_what_cannot_run_is_refused_to_the_letter(
    tmp_path: Path, error: MirrorError, status: int, said: object
) -> None:
    """Programs look for these texts."""
    async with running(tmp_path, error) as (client, _, _):
        assert await asked(client, "/jobs", ASK) == (status, said)


async def test_when_all_failed_each_is_named(tmp_path: Path) -> None:
    """With an id that is another one each time, as the README shows it."""
    failures = (Failure("ollama-node-1", "Connection timeout", 503), Failure("b", "the runner has stopped", 500))
    async with running(tmp_path, AllFailed(failures)) as (client, _, _):
        ids = set()
        for _ in range(2):
            status, said = await asked(client, "/jobs", ASK)
            ids.add(UUID(said["detail"].pop("job_id")))
            assert (status, said) == (
                503,
                {
                    "detail": {
                        "message": "All candidate nodes failed to execute the job",
                        "errors": [
                            {"node_id": "ollama-node-1", "message": "Connection timeout", "status": 503},
                            {"node_id": "b", "message": "the runner has stopped", "status": 500},
                        ],
                    }
                },
            )
        assert {one.version for one in ids} == {4}
        assert len(ids) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": None},
        {"model": " "},
        {"model": 5},
        {"prompt": None},
        {"prompt": ["x"]},
        {"options": []},
        {"stream": "no"},
        {"stream": 0},
    ],
)
async def test_a_wrong_job_is_a_400(tmp_path: Path, wrong: dict[str, object]) -> None:
    """And reaches no node."""
    async with running(tmp_path) as (client, _, one):
        status, said = await asked(client, "/jobs", {**ASK, **wrong})
        assert (status, list(said), one.jobs) == (400, ["detail"], [])


_ANY = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=3)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("model", "prompt", "options", "stream"), _ANY)) | _ANY)
def test_whatever_is_said_is_a_job_or_is_refused(said: object) -> None:
    """What is taken has a model, a prompt, and a body that an Ollama takes."""
    try:
        job = parse_job(said)
    except InvalidJob:
        return
    assert job.model
    assert parse_job(json.loads(json.dumps(job.body()))) == job
