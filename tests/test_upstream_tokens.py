"""Tokens: got as nobody where that does, with our signature where it must be, and shown to nobody else."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from yarl import URL

from mirror.errors import DeniedByUpstream, MirrorError, UpstreamMisbehaved, UpstreamUnavailable
from mirror.upstream.auth import Challenge, Signer, anonymous_request
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.net import answering
from tests.support import MODEL, add_blob, blob_path, ended, mirrored, upstream

NAME = "library/m"
HTTPS = URL("https://registry.example")


def refused(challenge: str) -> bytes:
    """An answer that wants a token."""
    return f"HTTP/1.1 401 x\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode()


def granted(body: str) -> bytes:
    """A token server's answer."""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize("redirects", [True, False])
async def test_an_anonymous_token_is_got_once_and_used_again(redirects: bool, tmp_path: Path) -> None:
    """Docker Hub gives one to anybody, and counts who asks."""
    async with running_fake_registry(redirects=redirects) as fake, upstream(tmp_path, fake.url) as up:
        content, digest = add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="anonymous"))
        fake.faults.add(Fault(Wrong.CHALLENGE, "redirect", text="anonymous"))
        await up.manifest(NAME, "latest")
        await up.locate(NAME, digest, len(content))

        (token,) = fake.asked("token")
        assert token.path == "/token/anonymous?service=fake&scope=repository:library/m:pull"
        assert "Authorization" not in token.headers


async def test_only_where_nobody_gets_one_ours_is_signed_for(tmp_path: Path) -> None:
    """Private models belong to whoever put our key into their account."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="signed"))
        await up.manifest(NAME, "latest")
        first, second = fake.asked("token")
        assert (first.status, second.status) == (401, 200)
        assert "Authorization" not in first.headers
        assert ":" in second.headers["Authorization"]
        assert fake.log[-1].headers["Authorization"].startswith("Bearer ")


async def test_the_key_is_made_once_for_our_eyes_only(tmp_path: Path) -> None:
    """It is what an account trusts: another after a restart would be locked out."""
    keys = []
    for _ in range(2):
        async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
            add_blob(fake, 1000)
            fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="signed"))
            await up.manifest(NAME, "latest")
            keys.append(fake.asked("token")[1].headers["Authorization"].partition(":")[0])

    assert keys[0] == keys[1] == (tmp_path / "key.pub").read_text().split()[1]
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert isinstance(load_ssh_private_key((tmp_path / "key").read_bytes(), None), Ed25519PrivateKey)
    assert {path.name for path in tmp_path.iterdir()} == {"key", "key.pub"}


@pytest.mark.parametrize("what", ["no key", "no folder"])
async def test_a_key_that_cannot_be_used_is_named(what: str, tmp_path: Path) -> None:
    """And the mirror goes on without it."""
    folder = tmp_path / "state"
    if what == "no key":
        folder.mkdir()
        (folder / "key").write_text("half a ke")
    async with running_fake_registry() as fake, upstream(folder, fake.url) as up:
        add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "manifest", text="signed"))
        with pytest.raises(DeniedByUpstream, match=f"{folder}/key cannot be used"):
            await up.manifest(NAME, "latest")


@pytest.mark.parametrize(
    ("realm", "known"),
    [
        ("https://registry.example/token", True),
        ("https://registry.example:443/token", True),
        ("https://listed.example/token", True),
        ("https://listed.example:8443/token", True),
        ("http://registry.example/token", False),
        ("http://listed.example/token", False),
        ("https://registry.example:444/token", False),
        ("https://evil.example/token", False),
        ("https://registry.example@evil.example/token", False),
        ("https://user:pw@registry.example/token", False),
        ("https://registry.example.evil.example/token", False),
    ],
)
def test_tokens_are_asked_of_known_hosts_only(realm: str, known: bool) -> None:
    """A registry that may name any realm may have our signature sent anywhere."""
    challenge = Challenge(URL(realm), "s", ())
    if known:
        challenge.allowed_for(HTTPS, frozenset({"listed.example"}))
        return
    with pytest.raises(DeniedByUpstream):
        challenge.allowed_for(HTTPS, frozenset({"listed.example"}))


async def test_nothing_is_sent_to_a_realm_that_is_refused(tmp_path: Path) -> None:
    """Neither a signature nor a word."""
    async with answering(granted("{}")) as (elsewhere, heads):
        realm = elsewhere.replace("127.0.0.1", "localhost")
        challenge = refused(f'Bearer realm="{realm}/token",service="s"')
        async with answering(challenge) as (url, _), upstream(tmp_path, url) as up:
            with pytest.raises(DeniedByUpstream, match=r"upstream\.realms"):
                await up.manifest(NAME, "latest")
        assert heads == []
        async with answering(challenge) as (url, _), upstream(tmp_path, url, realms="localhost") as up:
            with pytest.raises(DeniedByUpstream):
                await up.manifest(NAME, "latest")
        assert heads
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([refused("Basic realm=x")], DeniedByUpstream),
        ([refused("")], DeniedByUpstream),
        ([refused('Bearer realm=""')], DeniedByUpstream),
        ([refused('Bearer realm="http://["')], DeniedByUpstream),
        ([refused('Bearer realm="/token"')], DeniedByUpstream),
        ([refused('Bearer realm="http://127.0.0.1:99999/"')], DeniedByUpstream),
        ([refused('Bearer realm="{}/t"'), granted("not json")], DeniedByUpstream),
        ([refused('Bearer realm="{}/t"'), granted("[]")], DeniedByUpstream),
        ([refused('Bearer realm="{}/t"'), granted("{}")], DeniedByUpstream),
        ([refused('Bearer realm="{}/t"'), granted(json.dumps({"token": "a\r\nX: y"}))], DeniedByUpstream),
        ([refused('Bearer realm="{}/t"'), b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"], UpstreamUnavailable),
        (
            [refused('Bearer realm="{}/t"'), b"HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"],
            UpstreamMisbehaved,
        ),
        ([refused('Bearer realm="{}/t"'), granted(json.dumps({"token": "t"})), refused("")], DeniedByUpstream),
    ],
)
async def test_what_is_no_challenge_or_token_is_a_plain_refusal(
    answers: list[bytes], error: type[MirrorError], tmp_path: Path
) -> None:
    """Whatever a server answers, it is its error and not ours."""
    async with answering(b"") as (url, _):
        pass
    given = [answer.replace(b"{}/t", f"{url}/t".encode()) for answer in answers]
    port = URL(url).port
    async with answering(*given, port=port or 0) as (url, _), upstream(tmp_path, url, retry_attempts=0) as up:
        with pytest.raises(error):
            await up.manifest(NAME, "latest")


def test_scopes_and_the_realms_own_query_are_kept(tmp_path: Path) -> None:
    """As Ollama sends them: one parameter for each scope, sorted."""
    challenge = Challenge.parse('Bearer realm="https://r.example/token?a=b",service="s x",scope="one two"')
    assert challenge is not None
    url, authorization = Signer(tmp_path / "key", now=lambda: 12.5).request(challenge)
    anonymous = anonymous_request(challenge)

    assert url.raw_query_string.startswith("a=b&nonce=")
    assert url.raw_query_string.endswith("&scope=one&scope=two&service=s+x&ts=12")
    assert anonymous.query.getall("scope") == ["one", "two"]
    assert anonymous.query["a"] == "b"
    assert authorization.count(":") == 1


async def test_a_token_that_expires_in_the_middle_of_a_blob_is_renewed(tmp_path: Path) -> None:
    """Docker Hub's live for five minutes, a large blob takes longer."""
    async with running_fake_registry(redirects=False) as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, 9_000_000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "any"))
        fake.hold(digest, 2_000_000)
        await client.manifest()
        fill = await mirror.parts.fills.open(MODEL, digest, len(content))
        await fake.wait_for(lambda: fake.blob_bytes_sent(digest) > 2_000_000)
        fake.expire_tokens()
        fake.release(digest)
        await ended(fill)

        assert fill is not None
        assert fill.error is None
        assert (await client.get(blob_path(digest))).body == content
