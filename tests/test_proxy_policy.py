"""Rules on models hold for what is asked of the Ollama behind, by whatever words a request names them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.behind import asked, fronted

BLOCKED: dict[str, Any] = {"security__blocked_models": ["bad"]}

NAMING = (
    ("POST", "/api/generate", {"model": "bad", "prompt": "x"}),
    ("POST", "/api/chat", {"model": "library/bad:8b"}),
    ("POST", "/api/embed", {"model": "bad", "input": "x"}),
    ("POST", "/api/embeddings", {"model": "bad"}),
    ("POST", "/api/show", {"name": "bad"}),
    ("POST", "/api/pull", {"model": "bad"}),
    ("POST", "/api/push", {"model": "bad"}),
    ("POST", "/api/copy", {"source": "bad", "destination": "good"}),
    ("POST", "/api/copy", {"source": "good", "destination": "bad"}),
    ("POST", "/api/create", {"model": "good", "from": "bad"}),
    ("DELETE", "/api/delete", {"model": "bad"}),
    ("POST", "/v1/chat/completions", {"model": "bad", "messages": []}),
    ("POST", "/v1/completions", {"model": "bad"}),
    ("POST", "/v1/responses", {"model": "bad"}),
    ("POST", "/v1/embeddings", {"model": "bad"}),
    ("POST", "/v1/messages", {"model": "bad"}),
)


@pytest.mark.parametrize(("method", "path", "said"), NAMING)
async def test_a_model_that_is_blocked_is_not_asked_for(
    method: str, path: str, said: dict[str, Any], tmp_path: Path
) -> None:
    """On every route that names one; the sentence names the rule, in the shape of the face."""
    async with fronted(tmp_path, **BLOCKED) as at:
        status, refused = await at.json(path, said, method=method)
        assert (status, "security.blocked_models has bad" in json.dumps(refused)) == (403, True)
        if path.startswith("/v1/"):
            kind = "permission_error" if path == "/v1/messages" else "invalid_request_error"
            assert refused["error"]["type"] == kind
        assert at.ollama.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"MODEL": "bad"}',
        b'{"model": "good", "model": "bad"}',
        b'{"model": "bad", "model": "good"}',
        b'{"model": "good", "Name": "bad"}',
        b'{"model": "BAD"}',
        b'{"model": "registry.ollama.ai/library/bad"}',
        b'{"model": "https://registry.ollama.ai/library/bad"}',
        b'{"model": "b\\u0061d"}',
        b'{"model": "bad:local"}',
        b'\n {"prompt": "' + b"x" * 100_000 + b'", "model": "bad"}',
    ],
)
async def test_no_way_of_writing_it_gets_past(body: bytes, tmp_path: Path) -> None:
    """Go's decoder folds letter case and takes the last of two keys; who asks must not know more than who checks."""
    async with fronted(tmp_path, security__blocked_models=["bad:latest"]) as at:
        assert (await at.json("/api/generate", body))[0] == 403
        assert at.ollama.asked == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "bad"} x', 400),
        (b"model=bad", 400),
        (b'["bad"]', 400),
        (b'{"model": ["bad"]}', 400),
        (b'{"model": "a/b/c/d"}', 400),
        (b'{"model": "m\xff"}', 400),
        ('{"model": "bad"}'.encode("utf-16"), 400),
        (b'{"model": "' + b"m" * 5000 + b'"}', 413),
    ],
)
async def test_what_cannot_be_read_is_refused_where_there_are_rules(body: bytes, status: int, tmp_path: Path) -> None:
    """What the backend might read out of it nobody knows."""
    async with fronted(tmp_path, proxy__max_body=4000, **BLOCKED) as at:
        assert (await at.json("/api/generate", body))[0] == status
        assert at.ollama.asked == []


async def test_packed_and_multipart_bodies_are_refused_where_there_are_rules(tmp_path: Path) -> None:
    """They may name any model."""
    async with fronted(tmp_path, **BLOCKED) as at:
        packed = await asked(at.client, "/v1/responses", b"(\xb5/\xfd", Content_Encoding="zstd")
        assert (packed[0], "without Content-Encoding" in packed[1]["error"]["message"]) == (415, True)
        form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nbad\r\n--x--\r\n'
        sent = await asked(at.client, "/v1/audio/transcriptions", form, Content_Type="multipart/form-data; boundary=x")
        assert sent[0] == 400
        assert (await at.client.get("/v1/models/bad")).status == 403
        assert at.ollama.asked == []


async def test_what_is_allowed_arrives_as_it_was_written(tmp_path: Path) -> None:
    """Being looked at changes no byte of a request, and an answer still comes word by word."""
    async with fronted(tmp_path, **BLOCKED) as at:
        body = b'{ "model":"m",  "messages" : [], "options":{"seed":1.0} }'
        status, lines = await at.json("/api/chat", body)
        assert (status, len(lines), at.ollama.asked[0].body) == (200, 5, body)
        image = json.dumps({"model": "m", "images": ["x" * 3_000_000]}).encode()
        assert (await at.json("/api/generate", image))[0] == 200
        assert at.ollama.asked[1].body == image
        assert await at.json("/api/copy", b"") != (400, {"error": "invalid model name"})
        assert at.ollama.asked[-1].path == "/api/copy"


async def test_without_rules_nothing_is_looked_at(tmp_path: Path) -> None:
    """What Ollama makes of a body is Ollama's; a body may be as large as it likes."""
    async with fronted(tmp_path, proxy__max_body=2000) as at:
        said = {"source": "m", "destination": "n", "more": "x" * 100_000}
        assert (await at.json("/api/copy", said))[0] == 200
        assert json.loads(at.ollama.asked[0].body) == said


async def test_a_rule_for_some_is_none_for_others(tmp_path: Path) -> None:
    """The caller's user decides, whom the key says."""
    rules = [{"deny": ["m"], "users": ["anonymous"], "why": "show a key"}]
    changes: dict[str, Any] = {"security__rules": rules, "security__api_key": "word", "security__anonymous": ["api"]}
    async with fronted(tmp_path, **changes) as at:
        status, refused = await at.json("/api/generate", {"model": "m"})
        assert (status, "show a key" in refused["error"]) == (403, True)
        assert (await asked(at.client, "/api/generate", {"model": "m"}, Authorization="Bearer word"))[0] == 200
