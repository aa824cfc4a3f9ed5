"""``security.api_key`` is a word that somebody chose: no answer of any route may tell a right guess without bound."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mirror.access import Keyring, Scope
from tests.access import ask, proxied
from tests.fakes.registry import running_fake_registry
from tests.support import MANIFEST, Answer, Machine, add_blob, blob_path, mirrored

WORD = "hunter2"
FOREIGN = {"Host": "evil.example", "Origin": "http://evil.example"}


async def _guess(client: Machine, method: str, path: str, word: str, more: Mapping[str, str]) -> Answer:
    return await ask(client, path, {"Authorization": f"Bearer {word}", **more}, method=method)


def _told(answer: Answer) -> tuple[int, str, bytes]:
    """What of an answer a guesser can see."""
    return answer.status, answer.headers.get("Location", ""), answer.body


@pytest.mark.parametrize(
    ("method", "path", "more", "changes"),
    [
        ("GET", "BLOB", {}, {}),
        ("HEAD", "BLOB", {}, {}),
        ("GET", "BLOB", {"Range": "bytes=0-9"}, {"security__anonymous": ("none",)}),
        ("POST", "/api/x", FOREIGN, {"security__anonymous": ("none",)}),
        ("POST", "/nope", FOREIGN, {}),
        ("GET", "/mirror/v1/models", {}, {}),
        ("GET", MANIFEST, {}, {"security__rate_limit_requests": 3, "security__rate_limit_window": "1h"}),
        ("GET", "/v2/token", {}, {}),
        ("GET", "/livez", {}, {}),
    ],
)
async def test_a_right_guess_is_no_longer_told_after_ten_wrong_ones(
    tmp_path: Path, method: str, path: str, more: dict[str, str], changes: dict[str, Any]
) -> None:
    """Tickets in open pulls, 403 for 404 and a limit that is another's have each told it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, security__api_key=WORD, **changes) as opened:
        client = opened[1]
        _, digest = add_blob(fake, 1000)
        if "security__anonymous" not in changes and "security__rate_limit_requests" not in changes:
            await client.get(MANIFEST)
        where = blob_path(digest) if path == "BLOB" else path
        wrong = [await _guess(client, method, where, f"wrong{at}", more) for at in range(30)]
        assert _told(await _guess(client, method, where, WORD, more)) == _told(wrong[-1])
        # The same count holds on a route that needs a key: else the guess would be tried there.
        assert (await _guess(client, "GET", "/api/tags", WORD, {})).status in (401, 429)


async def test_ten_wrong_guesses_stop_no_key_of_ours_and_no_other_address(tmp_path: Path) -> None:
    """Who guesses must not lock others out, and a key that the mirror made cannot be guessed."""
    _, secret = Keyring(tmp_path / "state").add("chat", [Scope.API])
    async with proxied(tmp_path, security__api_key=WORD) as (_, client):
        for at in range(20):
            assert (await _guess(client, "GET", "/livez", f"wrong{at}", {})).status == 200
        assert (await _guess(client, "GET", "/api/tags", WORD, {})).status == 401
        assert (await _guess(client, "GET", "/api/tags", str(secret), {})).status == 200
        assert (await _guess(client, "GET", "/api/tags", WORD, {"X_Forwarded_For": "192.168.7.7"})).status == 200


async def test_tokens_and_signatures_are_no_guesses(tmp_path: Path) -> None:
    """An Ollama whose token has ended, or whose key is not known, must not keep its user's own key from counting."""
    async with proxied(tmp_path, security__api_key=WORD) as (_, client):
        for shown in ("Bearer mt_abc.def", "AAAA:BBBB", "Bearer", ""):
            for _ in range(15):
                await client.get("/mirror/v1/models", Authorization=shown)
        assert (await _guess(client, "GET", "/api/tags", WORD, {})).status == 200
