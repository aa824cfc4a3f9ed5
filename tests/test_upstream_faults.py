"""A blob on its way in while the upstream does what upstreams do."""

from pathlib import Path

import pytest

from mirror.errors import (
    MirrorError,
    NotFoundUpstream,
    RateLimited,
    StaleAddress,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamUnavailable,
)
from mirror.events import FillEnded
from mirror.fill import Fill
from tests.fakes import Fault, Wrong
from tests.fakes.registry import running_fake_registry
from tests.support import MODEL, add_blob, blob_path, locates, mirrored, written

SIZE = 9_000_000
MIB = 1 << 20
IMPATIENT = {"upstream__stall_timeout": 0.5}


def name_of(fault: object) -> str | None:
    """Tell the cases apart."""
    return f"{fault.wrong}-{fault.value:g}{fault.text[:4]}" if isinstance(fault, Fault) else None


PASSING = [
    Fault(Wrong.STATUS, times=2, value=500),
    Fault(Wrong.STATUS, times=2, value=503),
    Fault(Wrong.STATUS, times=1, value=429),
    Fault(Wrong.BUSY, times=2, text="0"),
    Fault(Wrong.BUSY, times=1, text="Wed, 21 Oct 2015 07:28:00 GMT"),
    Fault(Wrong.STATUS, times=2, value=403),
    Fault(Wrong.STATUS, times=1, value=404),
    Fault(Wrong.STATUS, "redirect", times=2, value=502),
    Fault(Wrong.CUT, times=5, value=0),
    Fault(Wrong.CUT, times=5, value=300_000),
    Fault(Wrong.STALL, times=2, value=200_000),
    Fault(Wrong.STALL, "redirect", times=1, value=0),
    Fault(Wrong.LENGTH, times=2, value=-10),
    Fault(Wrong.LENGTH, times=2, value=10),
    Fault(Wrong.RANGE, times=2, value=1),
    Fault(Wrong.RANGE, times=2, value=70_000),
    Fault(Wrong.WHOLE, times=2),
    Fault(Wrong.WHOLE),
    Fault(Wrong.SLOW, times=2, value=3_000_000),
    Fault(Wrong.DELAY, "redirect", times=1, value=0.2),
    Fault(Wrong.CORRUPT, times=1, value=5_000_000),
]


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("fault", PASSING, ids=name_of)
async def test_what_passes_is_overcome(fault: Fault, redirects: bool, tmp_path: Path) -> None:
    """And the bytes are right, byte by byte, in the store and not only in the end."""
    async with (
        running_fake_registry(redirects=redirects) as fake,
        mirrored(tmp_path, fake, **IMPATIENT) as (mirror, client),
    ):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        if not redirects and fault.value in (403, 404):
            return  # a plain registry's last word
        fake.faults.add(fault)
        fill = await mirror.parts.fills.open(MODEL, digest, SIZE)
        while fill is not None:
            await fill.ended.wait()
            fill = mirror.parts.fills.running(digest)

        answer = await client.get(blob_path(digest))
        assert (answer.status, answer.cache) == (200, "HIT")
        assert answer.body == content


FAILING: list[tuple[Fault, type[MirrorError], int, str]] = [
    (Fault(Wrong.STATUS, value=500), UpstreamUnavailable, 503, "answered 500"),
    (Fault(Wrong.STATUS, "redirect", value=500), UpstreamUnavailable, 503, "answered 500"),
    (Fault(Wrong.STATUS, "redirect", value=404), NotFoundUpstream, 404, "not found upstream"),
    (Fault(Wrong.STATUS, value=403), StaleAddress, 502, "403 from an address that was good"),
    (Fault(Wrong.STATUS, "redirect", value=418), UpstreamRefused, 403, "answered 418"),
    (Fault(Wrong.BUSY, text="0"), RateLimited, 429, "429, the upstream limits requests"),
    (Fault(Wrong.CUT, value=0), UpstreamUnavailable, 503, "localhost"),
    (Fault(Wrong.LENGTH, value=-1), UpstreamMisbehaved, 502, "bytes announced for a range of"),
    (Fault(Wrong.RANGE, value=1), UpstreamMisbehaved, 502, "answered 206"),
    (Fault(Wrong.REDIRECT, "redirect", text="ftp://x/"), UpstreamMisbehaved, 502, "no usable address"),
]


@pytest.mark.parametrize(("fault", "error", "status", "text"), FAILING, ids=name_of)
async def test_what_does_not_pass_is_told_to_the_client(
    fault: Fault, error: type[MirrorError], status: int, text: str, tmp_path: Path
) -> None:
    """With the upstream's reason, in a second, and leaving nothing behind."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, **IMPATIENT) as (mirror, client):
        _, digest = add_blob(fake, SIZE)
        await client.manifest()
        before = written(tmp_path)
        fake.faults.add(fault)
        heard: list[object] = []
        mirror.parts.events.tap(heard.append)
        fill = await mirror.parts.fills.open(MODEL, digest, SIZE)
        answer = await client.get(blob_path(digest))

        assert isinstance(fill, Fill)
        assert isinstance(fill.error, error)
        assert answer.status == status
        assert text in answer.body.decode()
        assert len([one for one in heard if isinstance(one, FillEnded)]) == 1
        assert len(fake.log) <= 1 + 3 * 4 * 2, "a handful of tries, whatever the number of connections"
        assert written(tmp_path) == before


async def test_signed_addresses_that_are_good_once_are_asked_for_again_and_again(tmp_path: Path) -> None:
    """Each use costs one byte more, and none twice."""
    async with running_fake_registry(valid_uses=2) as fake, mirrored(tmp_path, fake) as (_, client):
        content, digest = add_blob(fake, 4 * MIB)
        await client.manifest()
        answer = await client.get(blob_path(digest))

        assert answer.body == content
        assert fake.blob_bytes_sent(digest) <= len(content) + locates(fake)
        assert locates(fake) > 1


async def test_an_address_that_expires_in_the_middle_of_a_blob_is_renewed(tmp_path: Path) -> None:
    """After twenty minutes, in the real one; what is there is kept."""
    clock = [1000.0]
    async with (
        running_fake_registry(valid_s=100, now=lambda: clock[0]) as fake,
        mirrored(tmp_path, fake) as (_, client),
    ):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.hold(digest, 3 * MIB)
        async with client.session.get(client.url(blob_path(digest))) as answer:
            first = await answer.content.readexactly(2 * MIB)
            clock[0] += 101
            fake.release(digest)
            assert first + await answer.read() == content

        assert fake.blob_bytes_sent(digest) <= SIZE + locates(fake)
        assert locates(fake) == 2


async def test_a_fresh_address_that_is_refused_is_not_hammered(tmp_path: Path) -> None:
    """Some hosts allow only so many connections at once; asking them faster helps nobody."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake, upstream__retry_delay=0.2) as (_, client):
        _, digest = add_blob(fake, 40_000_000)
        await client.manifest()
        fake.faults.add(Fault(Wrong.SLOW, times=1, value=20_000_000))
        fake.faults.add(Fault(Wrong.STATUS, value=403))
        answer = await client.get(blob_path(digest))

        assert answer.status == 502
        assert len(fake.log) < 40


async def test_the_size_that_a_manifest_says_is_the_size(tmp_path: Path) -> None:
    """An upstream that has another blob under the name is told from one that has it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, 5000)
        await client.manifest()
        fake._blobs[digest] = content + b"more"
        answer = await client.get(blob_path(digest))

        assert answer.status == 502
        assert "says 5000 bytes, the upstream 5004" in answer.body.decode()
        assert mirror.parts.fills.in_flight == ()
