"""Where an upstream may send us, and what we take along."""

import socket
from pathlib import Path

import pytest
from yarl import URL

from mirror.config import PrivateRedirects
from mirror.errors import ForbiddenAddress, UpstreamMisbehaved, UpstreamUnavailable
from mirror.upstream.addresses import Guard, GuardedResolver, is_public
from mirror.values import Digest
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.net import answering
from tests.support import add_blob, carried, upstream

NAME = "library/m"
SOME = Digest("0" * 64)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_public_addresses(address: str) -> None:
    """A mirror that refused these would be of no use."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
        *("192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:1::1", "fc00::1", "fd12::1"),
        *("fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
    ],
)
def test_addresses_that_lead_into_ones_own_network(address: str) -> None:
    """A public registry has no business there, whatever notation it uses."""
    assert not is_public(address)


LITERALS = [
    *("127.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost"),
    *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "LOCALHOST", "localhost.", "a.localhost"),
    *("[fe80::1%25eth0]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "192.168.0.1."),
]


@pytest.mark.parametrize("host", LITERALS)
@pytest.mark.parametrize("proxied", [False, True])
async def test_redirects_into_ones_own_network_are_refused(host: str, proxied: bool, tmp_path: Path) -> None:
    """Cloud machines keep their keys at such addresses; a proxy on the way would fetch them just as well."""
    guard = Guard(PrivateRedirects.REFUSE, "registry.example", 443, proxied=proxied)
    target = URL(f"http://{host}/latest/meta-data", encoded=True)
    with pytest.raises(ForbiddenAddress, match=r"registry\.example redirects to"):
        await guard.check(target.host or "", 80)


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "localhost", "[::ffff:127.0.0.2]"])
async def test_no_request_is_made_to_an_address_that_is_refused(host: str, tmp_path: Path) -> None:
    """Asking is doing, for some servers."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url, private_redirects="refuse") as up:
        _, digest = add_blob(fake, 10)
        target = URL(fake.url).with_path("/token/anonymous").with_host(host.strip("[]"))
        fake.faults.add(Fault(Wrong.REDIRECT, "redirect", text=str(target)))
        with pytest.raises(ForbiddenAddress):
            await up.locate(NAME, digest, None)
        assert fake.asked("token") == []


async def test_the_upstream_itself_may_be_private_though_redirects_may_not(tmp_path: Path) -> None:
    """It is the user's own choice, and what it serves itself is no redirect."""
    async with (
        running_fake_registry(redirects=False) as fake,
        upstream(tmp_path, fake.url, private_redirects="refuse") as up,
    ):
        content, digest = add_blob(fake, 1000)
        got = bytearray(len(content))
        await carried(up, await up.locate(NAME, digest, None), got)
        assert got == content


@pytest.mark.parametrize(("mode", "refused"), [("auto", False), ("allow", False), ("refuse", True)])
async def test_by_default_a_private_upstream_may_redirect_to_private_addresses(
    mode: str, refused: bool, tmp_path: Path
) -> None:
    """Registries of one's own network keep their blobs there."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url, private_redirects=mode) as up:
        _, digest = add_blob(fake, 1000)
        try:
            located = await up.locate(NAME, digest, None)
        except ForbiddenAddress:
            assert refused
        else:
            assert not refused
            assert located.url.host == "localhost"


@pytest.mark.parametrize(
    ("host", "proxied", "refused"),
    [("1.1.1.1", False, True), ("10.0.0.1", False, False), ("localhost", False, False), ("some.example", True, True)],
)
async def test_whether_an_upstream_is_public_decides(host: str, proxied: bool, refused: bool) -> None:
    """Behind a proxy its name says nothing, so the careful answer is taken."""
    guard = Guard(PrivateRedirects.AUTO, host, 443, proxied=proxied)
    try:
        await guard.check("192.168.0.1", 443)
    except ForbiddenAddress:
        assert refused
    else:
        assert not refused


async def test_a_name_that_changes_its_address_after_the_look_is_refused(tmp_path: Path) -> None:
    """DNS rebinding: the address counts that a connection really has."""
    guard = Guard(PrivateRedirects.REFUSE, "registry.example", 443, proxied=False)
    await guard.check("1.1.1.1", 443)
    guard.check_peer("registry.example", "10.0.0.1")
    with pytest.raises(ForbiddenAddress):
        guard.check_peer("cdn.example", "10.0.0.1")
    resolver = GuardedResolver(guard)
    try:
        assert await resolver.resolve("localhost", 80, socket.AF_INET)
        guard._led_to["localhost"] = None
        with pytest.raises(ForbiddenAddress):
            await resolver.resolve("localhost", 80, socket.AF_INET)
        with pytest.raises(OSError, match="no host name"):
            await resolver.resolve("a" * 64)
    finally:
        await resolver.close()


@pytest.mark.parametrize(
    "location",
    [
        *("", " ", "ftp://x/", "http://", "http:///x", "//[::1", "http://h:99999/", "http://h:x/", "javascript:1"),
        *("http://user:pw@127.0.0.1/", "http://127.0.0.1/a b", "http://127.0.0.1/\xff", "http://a\x7f.b/"),
        *(f"http://{'a' * 64}/", "http://a..b/", "http://no-such-host.invalid/", "mailto:x", "data:,x"),
    ],
)
async def test_a_location_of_no_use_is_an_error_of_the_upstream(location: str, tmp_path: Path) -> None:
    """Whatever stands there, the mirror lives on."""
    answer = f"HTTP/1.1 307 x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin1")
    for mode in ("allow", "refuse"):
        async with (
            answering(answer) as (url, _),
            upstream(tmp_path, url, retry_attempts=0, private_redirects=mode) as up,
        ):
            with pytest.raises((UpstreamMisbehaved, UpstreamUnavailable)):
                await up.locate(NAME, SOME, None)


async def test_redirects_without_end_are_not_followed_for_ever(tmp_path: Path) -> None:
    """Five are more than any registry needs."""
    answer = b"HTTP/1.1 307 x\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as (url, heads), upstream(tmp_path, url, retry_attempts=0) as up:
        with pytest.raises(UpstreamMisbehaved, match="more than 5 redirects"):
            await up.locate(NAME, SOME, None)
    assert len(heads) == 5


async def test_a_signed_address_is_used_to_the_letter(tmp_path: Path) -> None:
    """Its signature is over every character; only the fragment is nobody's business."""
    path = "/b%2Bc/d+e?X-Amz-Signature=%2F%20+a=b&X-Amz-Date=%41%7E&empty="
    first = f"HTTP/1.1 307 x\r\nLocation: {path}#part\r\nContent-Length: 0\r\n\r\n".encode()
    one = b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/3\r\nContent-Length: 1\r\n\r\na"
    three = b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-2/3\r\nContent-Length: 3\r\n\r\nabc"
    async with answering(first, one, three) as (url, heads), upstream(tmp_path, url) as up:
        got = bytearray(3)
        await carried(up, await up.locate(NAME, SOME, 3), got)
    assert got == b"abc"
    assert [head.split()[1].decode() for head in heads[1:]] == [path, path]
    assert b"Range: bytes=0-2\r\n" in heads[2]
    assert f"Host: {URL(url).authority}\r\n".encode() in heads[2]


async def test_credentials_stay_with_the_host_they_are_for(tmp_path: Path) -> None:
    """Neither the redirect's host nor its log should see our token."""
    async with running_fake_registry() as fake, upstream(tmp_path, fake.url) as up:
        content, digest = add_blob(fake, 1000)
        fake.faults.add(Fault(Wrong.CHALLENGE, "redirect"))
        got = bytearray(len(content))
        await carried(up, await up.locate(NAME, digest, None), got)

        assert got == content
        assert fake.asked("redirect")[-1].headers["Authorization"].startswith("Bearer ")
        assert ["Authorization" in entry.headers for entry in fake.asked("blob")] == [False, False]
