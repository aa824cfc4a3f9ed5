"""What a client is told of a blob, header by header."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.app import RunningMirror
from mirror.values import ByteRange, Digest
from tests.disks import fill_up, small_disk
from tests.fakes import Fault, Wrong
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.support import MODEL, Answer, Machine, add_blob, blob_path, ended, mirrored, written

SIZE = 3_000_000


async def stored(mirror: RunningMirror, client: Machine, fake: FakeRegistry) -> tuple[bytes, Digest]:
    """Have a blob in the store."""
    content, digest = add_blob(fake, SIZE)
    await client.manifest()
    await ended(await mirror.parts.fills.open(MODEL, digest, SIZE))
    return content, digest


def promised(answer: Answer, digest: Digest) -> None:
    """Check what every answer with a blob, or a part of it, says."""
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("warm", [False, True])
async def test_whole_blob_says_where_its_parts_are(warm: bool, tmp_path: Path) -> None:
    """Without Location Ollama refuses a 200."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = await stored(mirror, client, fake) if warm else add_blob(fake, SIZE)
        answer = await client.get(blob_path(digest), Accept_Encoding="gzip")
        promised(answer, digest)
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["Location"] == blob_path(digest)
        assert answer.headers["Content-Length"] == str(SIZE)
        assert answer.cache == ("HIT" if warm else "MISS")
        assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("said", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes={SIZE - 3}-{SIZE + 100}", SIZE - 3, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        ("bytes=2000000-", 2_000_000, SIZE),
    ],
)
async def test_a_range_is_answered_with_exactly_it(
    warm: bool, said: str, start: int, stop: int, tmp_path: Path
) -> None:
    """Ollama writes whatever comes to where it asked for it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = await stored(mirror, client, fake) if warm else add_blob(fake, SIZE)
        answer = await client.get(blob_path(digest), Range=said)
        promised(answer, digest)
        assert (answer.status, answer.body) == (206, content[start:stop])
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert answer.headers["Content-Length"] == str(stop - start)
        assert "Location" not in answer.headers


@pytest.mark.parametrize("said", ["bytes=0-1,5-6", "lines=1-2", "bytes=0-1, -1"])
async def test_ranges_that_may_be_ignored_are(said: str, tmp_path: Path) -> None:
    """RFC 9110 §14.2: other units, and several at once."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = await stored(mirror, client, fake)
        answer = await client.get(blob_path(digest), Range=said)
        assert (answer.status, answer.body) == (200, content)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("said", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
async def test_a_range_beyond_the_end_says_how_many_bytes_there_are(warm: bool, said: str, tmp_path: Path) -> None:
    """A 416, from a blob that is not here yet too, which is not fetched for it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, digest = await stored(mirror, client, fake) if warm else add_blob(fake, SIZE)
        await client.manifest()
        before = fake.blob_bytes_sent(digest)
        answer = await client.get(blob_path(digest), Range=said)
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
        assert b"RANGE_INVALID" in answer.body
        assert fake.blob_bytes_sent(digest) == before
        assert mirror.parts.fills.in_flight == ()


@pytest.mark.parametrize("warm", [False, True])
async def test_if_range_decides_between_part_and_whole(warm: bool, tmp_path: Path) -> None:
    """Only the strong ETag of this blob means that the rest of it is wanted."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = await stored(mirror, client, fake) if warm else add_blob(fake, SIZE)
        same = await client.get(blob_path(digest), ByteRange(1, 3), If_Range=f'"{digest}"')
        assert (same.status, same.body) == (206, content[1:3])
        for other in ('"other"', f'W/"{digest}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
            answer = await client.get(blob_path(digest), ByteRange(1, 3), If_Range=other)
            assert (answer.status, len(answer.body)) == (200, SIZE)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_has_it_is_told_so(warm: bool, method: str, tmp_path: Path) -> None:
    """What a digest names does not change: nothing is sent, and nothing fetched."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, digest = await stored(mirror, client, fake) if warm else add_blob(fake, SIZE)
        before = len(fake.log)
        for said in (f'"{digest}"', f'"a", W/"{digest}"'):
            answer = await client.get(blob_path(digest), ByteRange(0, 5), method=method, If_None_Match=said)
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", f'"{digest}"')
        assert (await client.get(blob_path(digest), ByteRange(0, 5), If_None_Match='"other"')).status == 206
        assert warm == (len(fake.log) == before)


@pytest.mark.parametrize("state", ["warm", "named", "unknown"])
async def test_head_says_the_size_and_fetches_nothing(state: str, tmp_path: Path) -> None:
    """Ollama takes it for an empty blob otherwise; it need not even be asked upstream where a manifest says it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, digest = await stored(mirror, client, fake) if state == "warm" else add_blob(fake, SIZE)
        if state == "named":
            await client.manifest()
        before = len(fake.asked("redirect"))
        answer = await client.get(blob_path(digest), ByteRange(0, 5), method="HEAD")
        promised(answer, digest)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == str(SIZE)
        assert answer.cache == ("HIT" if state == "warm" else "MISS")
        assert len(fake.asked("redirect")) - before == (state == "unknown")
        assert mirror.parts.fills.in_flight == ()


async def test_joining_a_fill_says_so(tmp_path: Path) -> None:
    """MISS is who set it off, FILL who came along."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.hold(digest, SIZE // 2)
        first = await client.get(blob_path(digest), ByteRange(0, 10))
        second = await client.get(blob_path(digest), ByteRange(0, 10))
        fake.release(digest)
        await ended(mirror.parts.fills.running(digest))
        third = await client.get(blob_path(digest), ByteRange(0, 10))
        assert [one.cache for one in (first, second, third)] == ["MISS", "FILL", "HIT"]
        assert first.body == second.body == third.body == content[:10]


async def test_both_spellings_of_a_digest_are_one(tmp_path: Path) -> None:
    """Ollama writes file names with a hyphen."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        content, digest = await stored(mirror, client, fake)
        for spelled in (digest.filename, f"sha256:{digest.hex.upper()}", str(digest).replace(":", "%3A")):
            answer = await client.get(f"/v2/library/m/blobs/{spelled}")
            assert (answer.status, answer.body, answer.cache) == (200, content, "HIT")


async def test_a_blob_that_nobody_has_is_a_404(tmp_path: Path) -> None:
    """In the words registries use, and leaving nothing behind."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        _, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.forget(digest)
        before = written(tmp_path)
        for gone in (digest, Digest("5" * 64)):
            for method in ("GET", "HEAD"):
                answer = await client.get(blob_path(gone), method=method)
                if method == "GET":
                    assert answer.status == 404
                    assert b"BLOB_UNKNOWN" in answer.body
        await ended(mirror.parts.fills.running(digest))
        assert written(tmp_path) == before


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault(Wrong.STATUS, value=500), 503), (Fault(Wrong.BUSY, text="0"), 429), (Fault(Wrong.CORRUPT, value=1), 502)],
)
async def test_an_error_has_no_body_where_a_part_is_asked(fault: Fault, status: int, tmp_path: Path) -> None:
    """Ollama would write it into the blob, of which one byte may be all that it still wants."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        _, digest = add_blob(fake, SIZE)
        await client.manifest()
        fake.faults.add(fault)
        answer = await client.get(blob_path(digest), ByteRange(SIZE - 1, SIZE))
        assert (answer.status, answer.body) == (status, b"")
        assert len(answer.headers["X-Mirror-Error"]) > 10
        whole = await client.get(blob_path(digest))
        assert whole.status == status
        assert whole.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_offline_serves_what_is_here_and_asks_nobody(tmp_path: Path) -> None:
    """A ship's mirror."""
    async with running_fake_registry() as fake:
        async with mirrored(tmp_path, fake) as (mirror, client):
            content, digest = await stored(mirror, client, fake)
        before = len(fake.log)
        async with mirrored(tmp_path, fake, offline=True) as (_, client):
            assert (await client.get(blob_path(digest))).body == content
            missing = await client.get(blob_path(Digest("5" * 64)))
            assert missing.status == 404
            assert b"offline" in missing.body
        assert len(fake.log) == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    with small_disk(tmp_path / "small") as place:
        yield place


async def test_what_does_not_fit_is_passed_through(small: Path, tmp_path: Path) -> None:
    """Service goes on with a full disk; and a wrong blob is not completed here either."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 6_000_000)
        async with mirrored(small, fake, cache__state=small / "state") as (_, client):
            await client.manifest()
            whole = await client.get(blob_path(digest))
            promised(whole, digest)
            assert (whole.status, whole.body, whole.cache) == (200, content, "PASS")
            assert whole.headers["Location"] == blob_path(digest)
            part = await client.get(blob_path(digest), ByteRange(5, 3_000_000))
            assert (part.status, part.body, part.cache) == (206, content[5:3_000_000], "PASS")
            fake.faults.add(Fault(Wrong.CUT, times=2, value=1_000_000))
            assert (await client.get(blob_path(digest))).body == content
            fake.faults.add(Fault(Wrong.CORRUPT, times=1, value=10))
            wrong = await client.get(blob_path(digest))
            assert wrong.broken
            assert len(wrong.body) < len(content)
            fake.faults.add(Fault(Wrong.STATUS, value=500))
            assert (await client.get(blob_path(digest))).status == 503
            assert not {path for path in written(small) if digest.hex in path}


async def test_a_disk_that_fills_up_in_the_middle_cuts_nobody_off(small: Path, tmp_path: Path) -> None:
    """What was begun as a fill goes on as a passage."""
    async with running_fake_registry() as fake:
        content, digest = add_blob(fake, 2_500_000)
        async with mirrored(small, fake) as (_, client):
            await client.manifest()
            fake.hold(digest, 500_000)
            async with client.session.get(client.url(blob_path(digest))) as answer:
                assert answer.headers["X-Mirror-Cache"] == "MISS"
                first = await answer.content.readexactly(400_000)
                fill_up(small)
                fake.release(digest)
                assert first + await answer.read() == content


async def test_a_blob_that_is_not_there_is_asked_for_once_in_a_while(tmp_path: Path) -> None:
    """Whoever asks for it again and again does so here, and not upstream."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        path = f"/v2/library/m/blobs/sha256:{'0' * 64}"
        for method in ("GET", "HEAD", "GET"):
            assert (await client.get(path, method=method)).status == 404
        assert len(fake.log) == 1
        content, digest = add_blob(fake, 1000)
        assert (await client.get(blob_path(digest))).body == content
