"""What an enrolled Ollama signs for somebody else, brought to the mirror by whoever got it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from mirror.access import Keyring, Scope
from tests.access import Signer, ask
from tests.fakes.registry import running_fake_registry
from tests.ollama_signer import OllamaSigner
from tests.support import MANIFEST, Machine, add_blob, mirrored

OLLAMA = "ollama/0.14.3 (amd64 linux) Go/go1.24"
REFUSED = "put it into server.names"


@asynccontextmanager
async def _guarded(folder: Path, line: str, **changes: Any) -> AsyncIterator[Machine]:
    Keyring(folder / "state").add("laptop", [Scope.PULL], ollama=line)
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        async with mirrored(folder, fake, **changes) as (_, client):
            yield client


@asynccontextmanager
async def _rogue(mirror: Machine) -> AsyncIterator[tuple[str, list[tuple[int, str]]]]:
    """A registry that hands what it gets on to the mirror, Host header and all; yields its URL and what it got."""
    got: list[tuple[int, str]] = []

    async def handed_on(request: web.Request) -> web.Response:
        if request.path != "/v2/token":
            realm = f'Bearer realm="http://{request.host}/v2/token",service="s",scope="repository:x/y:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        answer = await mirror.get(request.raw_path, Host=request.host, Authorization=request.headers["Authorization"])
        got.append((answer.status, answer.body.decode()))
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handed_on)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", got
    finally:
        await runner.cleanup()


async def test_a_registry_that_hands_a_signature_on_gets_no_token(tmp_path: Path) -> None:
    """Else whoever gets a user to pull from it once reads all that the user's key is good for; here even from this
    very machine, where only the port tells it from the mirror."""
    async with aiohttp.ClientSession() as session:
        victim = OllamaSigner(session)
        async with _guarded(tmp_path, victim.public) as client, _rogue(client) as (url, got):
            async with session.get(f"{url}/v2/x/y/manifests/latest") as asked:
                await victim.call(*victim.request(asked.headers["WWW-Authenticate"]))
            assert [status for status, _ in got] == [401]
            assert REFUSED in got[0][1]
            own = await client.get(MANIFEST)
            assert (await victim.call(*victim.request(own.headers["WWW-Authenticate"])))[0] == 200, "by its own name"


@pytest.mark.parametrize("host", ["evil.example:5000", "evil.example", "10.1.2.3:11434", "[fd00::7]", "127.0.0.1:9"])
async def test_a_signature_for_another_host_is_refused_with_what_to_do(tmp_path: Path, host: str) -> None:
    """An address proves no more than a name: the rogue has one too."""
    ollama = Signer()
    async with _guarded(tmp_path, ollama.line) as client:
        for scheme in ("http", "https"):
            url, authorization = ollama.asking(f"{scheme}://{host}/v2/token")
            came = {"Host": host, "X_Forwarded_Proto": scheme, "Authorization": authorization}
            answer = await ask(client, URL(url, encoded=True).raw_path_qs, came)
            said = json.loads(answer.body)["errors"][0]["message"]
            assert (answer.status, REFUSED in said, host in said) == (401, True, True)


async def test_nobody_is_sent_to_another_host_to_sign(tmp_path: Path) -> None:
    """Ollama shows the sentence that comes with a 403, docker and skopeo show their key as a password after a 401."""
    async with _guarded(tmp_path, Signer().line) as client:
        ollama = await ask(client, MANIFEST, {"Host": "mirror.example:11434", "User_Agent": OLLAMA})
        assert (ollama.status, "WWW-Authenticate" in ollama.headers) == (403, False)
        said = json.loads(ollama.body)["errors"][0]["message"]
        assert "mirror.example:11434" in said
        assert REFUSED in said
        other = await ask(client, MANIFEST, {"Host": "mirror.example:11434"})
        assert (other.status, other.headers["WWW-Authenticate"][:6]) == (401, "Basic ")


async def test_hosts_of_the_settings_are_the_mirrors_own(tmp_path: Path) -> None:
    """What the sentence tells people to do has to work: a name, an address, a port, and the mirrored registry."""
    ollama = Signer()
    said = {"server__names": ("models.example", "10.1.2.3:8080"), "server__public_url": "http://pub.example:81/x"}
    async with _guarded(tmp_path, ollama.line, **said) as client:
        port = client.url("/").port
        for host, good in (
            ("models.example", True),
            (f"MODELS.example.:{port}", True),
            ("10.1.2.3:8080", True),
            ("pub.example:81", True),
            ("registry.ollama.ai:443", True),
            (f"localhost:{port}", True),
            ("models.example:9999", False),
            ("a.models.example", False),
            ("10.1.2.4:8080", False),
        ):
            refused = await ask(client, MANIFEST, {"Host": host})
            found = re.search(r'realm="([^"]+)",', refused.headers["WWW-Authenticate"])
            assert (found is not None) is good, host
            realm = f"http://{host}/v2/token" if found is None else found[1]
            assert URL(realm).authority == URL(f"http://{host}").authority
            url, authorization = ollama.asking(realm)
            shown = {"Host": host, "Authorization": authorization}
            answer = await ask(client, URL(url, encoded=True).raw_path_qs, shown)
            assert answer.status == (200 if good else 401), host


async def test_what_was_signed_for_another_host_is_no_more_by_absolute_form(tmp_path: Path) -> None:
    """A target with a host of its own goes before the Host header, for the realm as for aiohttp."""
    ollama = Signer()
    async with _guarded(tmp_path, ollama.line) as client:
        url, authorization = ollama.asking("http://localhost:9/v2/token")
        port = client.url("/").port
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET {url} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: {authorization}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert REFUSED.encode() in answer
