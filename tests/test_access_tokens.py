"""Ollama's own keys: the challenge, the signed request, the token, and the ticket for the ranges."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from yarl import URL

from mirror.access import Keyring, Scope, SignedRequests
from mirror.app import RunningMirror, running_mirror
from mirror.errors import TokenRefused
from mirror.values import ByteRange, Digest
from tests.access import Clock, Signer, ask, keys_in
from tests.fakes.registry import running_fake_registry
from tests.support import MANIFEST, Answer, Machine, add_blob, blob_path, machine, mirrored, parts, settings

REALM = "http://mirror:11434/v2/token"
_CHALLENGE = re.compile(r'Bearer realm="([^"]+)",service="mirror",scope="([^"]+)"')


@asynccontextmanager
async def _guarded(folder: Path, ollama: Signer, **changes: Any) -> AsyncIterator[tuple[RunningMirror, Machine]]:
    """A mirror from which only this Ollama, and whoever shows a key, may pull."""
    Keyring(folder / "state").add("laptop", [Scope.PULL], ollama=ollama.line)
    async with running_fake_registry() as fake:
        add_blob(fake, 300_000)
        async with mirrored(folder, fake, **changes) as opened:
            yield opened


async def _token(client: Machine, ollama: Signer, refused: Answer) -> str:
    """Get a token as Ollama does (server/auth.go): ask the realm of the challenge, which has to be on the same host."""
    found = _CHALLENGE.fullmatch(refused.headers["WWW-Authenticate"])
    assert found is not None
    assert URL(found[1]).authority == client.url("/").authority
    url, authorization = ollama.asking(found[1])
    answer = await client.get(_path(url), Authorization=authorization)
    assert answer.status == 200, answer.body
    said = json.loads(answer.body)
    assert said["token"] == said["access_token"]
    assert said["expires_in"] == 3600
    assert said["issued_at"].endswith("Z")
    return str(said["token"])


def _path(url: str) -> str:
    return url[url.index("/v2/") :]


async def test_an_ollama_with_a_known_key_pulls(tmp_path: Path) -> None:
    """The whole of it: refused, signed, manifest, size, the address of the blob, and sixteen ranges without a token."""
    ollama = Signer()
    async with _guarded(tmp_path, ollama) as (_, client):
        refused = await client.get(MANIFEST)
        assert refused.status == 401
        bearer = {"Authorization": f"Bearer {await _token(client, ollama, refused)}"}
        manifest = await ask(client, MANIFEST, bearer)
        assert manifest.status == 200
        digest = Digest.parse(json.loads(manifest.body)["layers"][0]["digest"])
        head = await ask(client, blob_path(digest), bearer, method="HEAD")
        assert head.headers["Content-Length"] == "300000"
        probe = await ask(client, blob_path(digest), bearer)
        location = probe.headers["Location"]
        assert "?ticket=" in location
        spans = parts(300_000)
        async with asyncio.TaskGroup() as group:
            got = [group.create_task(client.get(location, span)) for span in spans]
        assert Digest.of(b"".join(one.result().body for one in got)) == digest
        other = location.replace(str(digest), f"sha256:{'0' * 64}")
        ticket = location.partition("?")[2]
        by_digest = f"{MANIFEST.removesuffix('latest')}{digest}?{ticket}"
        for path in (other, blob_path(digest), f"{MANIFEST}?{ticket}", by_digest, f"/v2/?{ticket}"):
            answer = await client.get(path, ByteRange(0, 10))
            assert answer.status == 401, path
        revoked = await client.get("/mirror/v1/keys/laptop", method="DELETE")
        assert revoked.status == 200
        assert (await ask(client, MANIFEST, bearer)).status == 401, "it has ended with its key"
        late = await ask(client, location, {}, ByteRange(0, 10))
        assert (late.status, late.body) == (401, b"")


async def test_another_ollama_is_told_what_to_do(tmp_path: Path) -> None:
    """Its user sees the text of the refusal."""
    async with _guarded(tmp_path, Signer()) as (_, client):
        realm = str(client.url("/v2/token"))
        url, authorization = Signer().asking(realm)
        answer = await client.get(_path(url), Authorization=authorization)
        assert answer.status == 401
        assert "mirror key add NAME --ollama" in json.loads(answer.body)["errors"][0]["message"]
        nobody = await client.get("/v2/token")
        assert (nobody.status, "show a key" in nobody.body.decode()) == (401, True)


async def test_a_key_gets_a_token_too(tmp_path: Path) -> None:
    """As docker and skopeo ask for one: with user and password."""
    _, secret = Keyring(tmp_path / "state").add("ci", [Scope.PULL, Scope.API])
    basic = base64.b64encode(f"any:{secret}".encode()).decode()
    async with _guarded(tmp_path, Signer()) as (_, client):
        for shown in (f"Basic {basic}", f"Bearer {secret}"):
            answer = await client.get("/v2/token?service=mirror&scope=repository:library/m:pull", Authorization=shown)
            token = json.loads(answer.body)["token"]
            assert (await client.get(MANIFEST, Authorization=f"Bearer {token}")).status == 200
            assert (await client.get("/api/tags", Authorization=f"Bearer {token}")).status == 200
            again = await client.get("/v2/token", Authorization=f"Bearer {token}")
            assert (again.status, "gets no other" in again.body.decode()) == (401, True)
        wrong = [(await client.get("/v2/token", Authorization=f"Basic {at}")).status for at in range(12)]
        assert wrong == [401] * 10 + [429] * 2


async def test_the_realm_is_where_the_client_came_by(tmp_path: Path) -> None:
    """Ollama takes no other host or port, and a proxy that ends TLS says which scheme it was."""
    ollama = Signer()
    said = {"security__trusted_proxies": ("127.0.0.1",), "server__names": ("models.example.org", "mirror:5000")}
    async with _guarded(tmp_path, ollama, **said) as (_, client):
        for host, proto, realm in (
            ("models.example.org", "https", "https://models.example.org/v2/token"),
            ("mirror:5000", "http", "http://mirror:5000/v2/token"),
            ("[::1]:80", "http", "http://[::1]:80/v2/token"),
        ):
            came = {"Host": host, "X_Forwarded_For": "192.168.7.7", "X_Forwarded_Proto": proto}
            refused = await ask(client, MANIFEST, came)
            assert f'realm="{realm}"' in refused.headers["WWW-Authenticate"]
            url, authorization = ollama.asking(realm)
            assert (await ask(client, _path(url), {"Authorization": authorization, **came})).status == 200
            elsewhere = {**came, "Host": "other:80"}
            url, authorization = ollama.asking(realm)
            assert (await ask(client, _path(url), {"Authorization": authorization, **elsewhere})).status == 401


async def test_a_client_of_a_proxy_gets_its_token_under_the_upstreams_name(tmp_path: Path) -> None:
    """By HTTP_PROXY the mirror is asked in absolute form, and the realm has to be on the registry that was asked."""
    ollama = Signer()
    async with _guarded(tmp_path, ollama) as (mirror, _):
        port = URL(mirror.url).port
        assert port is not None

        async def ask(target: str, authorization: str = "") -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            shown = f"Authorization: {authorization}\r\n" if authorization else ""
            host = target.split("/")[2]
            head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{shown}Connection: close\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        async with asyncio.timeout(10):
            for host in ("registry.ollama.ai", "registry.ollama.ai:443", "[::1]:80"):
                refused = await ask(f"http://{host}{MANIFEST}")
                assert f'realm="http://{host}/v2/token"'.encode() in refused
            url, authorization = ollama.asking("http://registry.ollama.ai/v2/token")
            given = await ask(url, authorization)
            assert given.startswith(b"HTTP/1.1 200 ")
            token = json.loads(given.partition(b"\r\n\r\n")[2])["token"]
            answer = await ask(f"http://registry.ollama.ai{MANIFEST}", f"Bearer {token}")
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_mirror_pulls_from_a_mirror_that_asks_for_keys(tmp_path: Path) -> None:
    """One site's mirror in front of another's: it signs as an Ollama does, with the key that it has."""
    below = Signer()
    private = below.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "key").write_bytes(private)
    (tmp_path / "below").mkdir()
    async with _guarded(tmp_path, below) as (above, _):
        said = settings(tmp_path / "below", above.url, upstream__key_file=tmp_path / "key")
        async with running_mirror(said) as mirror, machine(mirror.url) as client:
            manifest = await client.manifest()
            blob = manifest.layers[0]
            assert Digest.of((await client.get(blob_path(blob.digest))).body) == blob.digest


def _known(folder: Path, ollama: Signer, clock: Clock, most: int = 1000) -> SignedRequests:
    Keyring(folder, clock.instant).add("laptop", [Scope.PULL], ollama=ollama.line)
    return SignedRequests(keys_in(folder, clock), clock, most)


def test_a_signature_is_for_one_address_and_text(tmp_path: Path) -> None:
    """Whatever is changed on the way, or signed for somebody else, is refused."""
    ollama, clock = Signer(), Clock(time.time())
    signed = _known(tmp_path, ollama, clock)
    url, authorization = ollama.asking(REALM, ts=clock.at)
    public, _, said = authorization.partition(":")
    for wrong, address in (
        (authorization, url.replace("mirror:11434", "evil:11434")),
        (authorization, url.replace("http:", "https:")),
        (authorization, url.replace("pull", "push")),
        (authorization, f"{url}&scope=more"),
        (ollama.signed(url, "POST"), url),
        (public, url),
        (f"{public}:", url),
        (f"{public}:{said[:-4]}", url),
        (f"{public}:{said} ", url),
        (f"{public}:{'ä' * 88}", url),
    ):
        with pytest.raises(TokenRefused, match="signature is not one of laptop"):
            signed.key(wrong, address)
    for wrong in (Signer().signed(url), f"x:{said}", "", ":"):
        with pytest.raises(TokenRefused, match="does not know the key"):
            signed.key(wrong, url)
    assert signed.key(authorization, url).name == "laptop"


@pytest.mark.parametrize(("apart", "good"), [(0, True), (299, True), (-299, True), (301, False), (-301, False)])
def test_the_clocks_may_be_five_minutes_apart(tmp_path: Path, apart: float, good: bool) -> None:
    """Later it could have been found in somebody's log."""
    ollama, clock = Signer(), Clock(time.time())
    signed = _known(tmp_path, ollama, clock)
    url, authorization = ollama.asking(REALM, ts=clock.at + apart)
    if good:
        assert signed.key(authorization, url).name == "laptop"
        return
    with pytest.raises(TokenRefused, match="set the clocks"):
        signed.key(authorization, url)


def test_a_request_is_good_once(tmp_path: Path) -> None:
    """As long as its time could be right; afterwards its time is wrong."""
    ollama, clock = Signer(), Clock(1_800_000_000)
    signed = _known(tmp_path, ollama, clock)
    url, authorization = ollama.asking(REALM, ts=clock.at + 299)
    signed.key(authorization, url)
    for _ in range(12):
        with pytest.raises(TokenRefused, match="made before"):
            signed.key(authorization, url)
        clock.at += 49
    clock.at += 300
    with pytest.raises(TokenRefused, match="set the clocks"):
        signed.key(authorization, url)


@pytest.mark.parametrize(
    "query",
    ["", "ts=NOW", "nonce=0123456789abcdef", "nonce=short&ts=NOW", "nonce=0123456789abcdef&ts=NOW&ts=1",
     "nonce=0123456789abcdef&nonce=0123456789abcdeg&ts=NOW", "nonce=0123456789abcdef&ts=NOW.5",
     "nonce=0123456789abcdef&ts=",
     "nonce=" + "a" * 300 + "&ts=NOW", "nonce=0123456789abcdef&ts=NOW&" + "&".join("a" * 100)],
)  # fmt: skip
def test_a_request_says_when_and_which(tmp_path: Path, query: str) -> None:
    """Else it could be told again."""
    ollama, clock = Signer(), Clock(1_800_000_000)
    signed = _known(tmp_path, ollama, clock)
    url = f"{REALM}?{query.replace('NOW', str(int(clock.at)))}"
    with pytest.raises(TokenRefused, match="needs one ts"):
        signed.key(ollama.signed(url), url)


def test_the_memory_of_requests_is_bounded(tmp_path: Path) -> None:
    """A known Ollama that asks without end is refused, and again let in once the oldest are too old."""
    ollama, clock = Signer(), Clock(1_800_000_000)
    signed = _known(tmp_path, ollama, clock, most=3)

    def ask() -> str:
        url, authorization = ollama.asking(REALM, ts=clock.at)
        return signed.key(authorization, url).name

    assert [ask() for _ in range(3)] == ["laptop"] * 3
    with pytest.raises(TokenRefused, match="too many"):
        ask()
    other = Signer()
    Keyring(tmp_path, clock.instant).add("other", [Scope.PULL], ollama=other.line)
    signed = SignedRequests(keys_in(tmp_path, clock), clock, 3)
    assert [ask() for _ in range(3)] == ["laptop"] * 3
    url, authorization = other.asking(REALM, ts=clock.at)
    assert signed.key(authorization, url).name == "other", "one Ollama must not stop another"
    clock.at += 601
    assert ask() == "laptop"


def test_an_ended_key_signs_in_vain(tmp_path: Path) -> None:
    """From the moment on that it is revoked."""
    ollama, clock = Signer(), Clock(1_800_000_000)
    _known(tmp_path, ollama, clock)
    Keyring(tmp_path, clock.instant).revoke("laptop")
    url, authorization = ollama.asking(REALM, ts=clock.at)
    with pytest.raises(TokenRefused, match="it has ended"):
        SignedRequests(keys_in(tmp_path, clock), clock).key(authorization, url)
