"""Hosts that requests say they are for, and bodies that are not what they say: whatever comes, an answer."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from mirror.access import Keyring, Scope
from mirror.app import RunningMirror
from mirror.listen.names import Names, authority_of, plain_host
from tests.fakes.registry import running_fake_registry
from tests.support import MANIFEST, add_blob, blob_path, mirrored

NO_HOST = (
    "", " ", "[", "]", "[::1", "[::1]:x", "a:b", "a:99999", "a:0", "a:-1", "a: 1", ":", ":80", "@", "u:p@h", "a b",
    "a/b", "a?b", "a#b", "%", "%zz", "..", ".", "a..b", "a" * 64, "a." * 200, "xn--", "xn--a", "\u200b", "\xff",
    "[v1.x]", "[:::::]:1", "[1.2.3.4]", "[fe80::1%25lo]", "<script>", '"', "a\\b", "a,b", "-a", "\uff11.0.0.1",
)  # fmt: skip
HOST = {
    "a": ("a", None),
    "A.b.:80": ("a.b.", 80),
    "a_b-c.d:11434": ("a_b-c.d", 11434),
    "10.0.0.1:1": ("10.0.0.1", 1),
    "[::1]:65535": ("[::1]", 65535),
    "[::ffff:10.0.0.1]": ("[::ffff:10.0.0.1]", None),
    "xn--bcher-kva.example": ("xn--bcher-kva.example", None),
}


def test_hosts_and_what_is_none() -> None:
    """One reading of the header for everybody behind it."""
    for text in NO_HOST:
        assert authority_of(text) is None, text
    for text, wanted in HOST.items():
        assert authority_of(text) == wanted


@given(st.text(alphabet="ax:.[]-_019fF%@/ \u00df", max_size=20))
def test_an_address_can_be_made_of_every_host(text: str) -> None:
    """That is what it is looked at for: what comes behind makes addresses of it without asking again."""
    if authority_of(text) is not None:
        url = URL.build(scheme="http", authority=text)
        assert url.host
        assert url.port
        assert plain_host(url.host)


async def _answer(mirror: RunningMirror, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(mirror.url).port)
    async with asyncio.timeout(10):
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize("data", [{}, {"listen__data": "127.0.0.1:0"}])
async def test_a_host_that_is_none_is_answered_400(tmp_path: Path, data: dict[str, str]) -> None:
    """On every face, with a key and without: a traceback in the log is somebody's night."""
    _, secret = Keyring(tmp_path / "state").add("k", [Scope.PULL])
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **data) as (mirror, _):
        _, digest = add_blob(fake, 1000)
        paths = ("/", "/livez", "/v2/", MANIFEST, blob_path(digest), "/mirror/setup", "/v2/token", "/api/tags", "/nope")
        for host in NO_HOST:
            for path in paths:
                head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
                answer = await _answer(mirror, f"{head}Connection: close\r\n\r\n".encode())
                assert answer[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.0 400 "), (host, path, answer)
        for host in HOST:
            answer = await _answer(mirror, f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 "), (host, answer)
        for host in ("a:99999", "xn--a", "[::1", "a..b"):
            sent = f"GET http://{host}/v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            assert (await _answer(mirror, sent.encode()))[8:12] in (b" 400", b" 403"), host


async def test_a_body_that_is_not_what_its_headers_say_is_answered_400(tmp_path: Path) -> None:
    """Broken chunks are the client's fault and no news for the log."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, _):
        head = "POST /mirror/v1/pulls HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for more in (
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            "Content-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        ):
            answer = await _answer(mirror, f"{head}{more}".encode())
            assert b" 400 " in answer[:20], answer
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", URL(mirror.url).port)
            expecting = "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(f"{head}{expecting}".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n", "it waits for the body"
            writer.write(b"2\r\n{}\r\nzz\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.") == 1


@pytest.mark.parametrize(
    ("authority", "good"),
    [
        ("models.lan", True),
        ("models.lan:11434", True),
        ("models.lan:5000", False),
        ("up.example", True),
        ("up.example:5001", True),
        ("up.example:5002", False),
        ("10.0.0.5:11434", True),
        ("10.0.0.5:5001", False),
        ("10.0.0.6:11434", False),
        ("127.0.0.1:11434", True),
        ("127.0.0.1:9", False),
        ("models.lan:99999", False),
    ],
)
def test_a_host_with_a_port_is_the_mirrors_or_another_programs(authority: str, good: bool) -> None:
    """What is signed for another program of the same machine must not be good here."""
    names = Names(frozenset({"up.example"}), frozenset({"models.lan"}), mirrored_ports=frozenset({80, 5001}))
    assert names.calls(authority, ("10.0.0.5", 11434), 80) is good
