"""A bundle that was cut off is gone on with, and only right bytes get into the file."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.bundles import Bundle, Members, kept_prefix, save
from mirror.errors import BadBundle
from tests.bundled import everything, in_chunks, keep_many, opened, silent, tar_of
from tests.stored import NAME, WEIGHTS, keep

Pieces = Callable[[int], AsyncGenerator[bytes, None]]


class Sender:
    """A tar that is sent from any byte on, as a store or a far mirror does; remembers from where it was asked for."""

    def __init__(self, raw: bytes, chunk: int = 1000) -> None:
        self.raw = raw
        self.chunk = chunk
        self.asked: list[int] = []

    def __call__(self, start: int) -> AsyncGenerator[bytes, None]:
        """Send it."""
        self.asked.append(start)
        return in_chunks(self.raw[start:], self.chunk)


@pytest.fixture
async def members(tmp_path: Path) -> Members:
    """Where everything lies in the tar of some models."""
    async with opened(tmp_path / "a") as store:
        return Bundle.of(store, await keep_many(store)).members


@pytest.fixture
async def raw(tmp_path: Path, members: Members) -> bytes:
    """That tar."""
    async with opened(tmp_path / "a") as store:
        return await tar_of(Bundle.of(store, [one.name for one in store.complete]))


async def test_a_store_is_saved_to_a_file(tmp_path: Path) -> None:
    """Progress ends at the whole, and nothing unfinished stays."""
    seen: list[tuple[int, int | None]] = []
    (tmp_path / "x.tar").write_bytes(b"an older one")
    async with opened(tmp_path / "a") as store:
        bundle = Bundle.of(store, await keep_many(store))
        await save(tmp_path / "x.tar", bundle.members, bundle.pieces, lambda *step: seen.append(step))
        assert (tmp_path / "x.tar").read_bytes() == await tar_of(bundle)
    assert seen[0] == (0, bundle.total)
    assert seen[-1] == (bundle.total, bundle.total)
    assert not (tmp_path / "x.tar.partial").exists()


async def test_after_a_cut_anywhere_only_the_rest_is_sent(tmp_path: Path, members: Members, raw: bytes) -> None:
    """What is whole is not sent again; what is not, is."""
    edges = {0, len(raw)}
    for member in members:
        content = member.offset + len(member.head)
        edges |= {member.offset, content, content + member.size // 2, content + member.size, member.end}
    target = tmp_path / "x.tar"
    for cut in sorted({edge + by for edge in edges for by in (-1, 0, 1) if 0 <= edge + by <= len(raw)}):
        (tmp_path / "x.tar.partial").write_bytes(raw[:cut])
        sender = Sender(raw)
        await save(target, members, sender, silent)
        assert target.read_bytes() == raw
        assert sender.asked == [max((one.end for one in members if one.end <= cut), default=0)], cut


async def test_what_became_wrong_on_the_disk_is_sent_again(tmp_path: Path, members: Members, raw: bytes) -> None:
    """A crash may leave zeros at the end, and disks change bytes: nothing after the first wrong one counts."""
    for member in members:
        for at in (member.offset, member.offset + len(member.head), member.end - 1):
            spoilt = bytearray(raw)
            spoilt[at] ^= 0x20
            (tmp_path / "x.tar.partial").write_bytes(spoilt)
            before = [one.offset for one in members if one.offset <= at][-1]
            assert kept_prefix(tmp_path / "x.tar.partial", members) == before
            sender = Sender(raw)
            await save(tmp_path / "x.tar", members, sender, silent)
            assert sender.asked == [before]
            assert (tmp_path / "x.tar").read_bytes() == raw


def test_of_a_file_that_is_not_there_nothing_is_kept(tmp_path: Path, members: Members) -> None:
    """The first attempt begins at the beginning."""
    assert kept_prefix(tmp_path / "none", members) == 0


def test_a_file_that_is_too_long_is_kept_to_its_last_member(tmp_path: Path, members: Members, raw: bytes) -> None:
    """The rest is cut off."""
    (tmp_path / "x").write_bytes(raw + b"more")
    assert kept_prefix(tmp_path / "x", members) == members.end


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw[:-1], "only .* bytes came"),
        (lambda raw: raw + b"\0", "goes on after its end"),
        (lambda raw: raw.replace(WEIGHTS, WEIGHTS.swapcase()), "other bytes"),
        (lambda raw: raw.replace(b"ustar", b"rats!"), "header or padding"),
        (lambda raw: b"", "only 0 of"),
    ],
)
async def test_other_bytes_do_not_become_the_file(
    tmp_path: Path, members: Members, raw: bytes, change: Callable[[bytes], bytes], why: str
) -> None:
    """A network and a proxy can do all this; what was right is kept for the next attempt."""
    target = tmp_path / "x.tar"
    with pytest.raises(BadBundle, match=why):
        await save(target, members, Sender(change(raw)), silent)
    assert not target.exists()
    await save(target, members, Sender(raw), silent)
    assert target.read_bytes() == raw


@pytest.fixture
async def large(tmp_path: Path) -> tuple[Members, bytes]:
    """A tar of two blobs of 2 MiB, in which a cut loses something."""
    async with opened(tmp_path / "large") as store:
        await keep(store, NAME, bytes(2 << 20), b"x" * (2 << 20))
        bundle = Bundle.of(store, [NAME])
        return bundle.members, await tar_of(bundle)


async def test_what_the_sender_raises_goes_through_and_what_came_is_kept(
    tmp_path: Path, large: tuple[Members, bytes]
) -> None:
    """Only the caller knows what its errors mean."""
    members, raw = large

    async def cut_off(start: int) -> AsyncGenerator[bytes, None]:
        yield raw[start : len(raw) - (1 << 20)]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await save(tmp_path / "x.tar", members, cut_off, silent)
    assert kept_prefix(tmp_path / "x.tar.partial", members) == members.every[2].end


async def test_a_cancelled_save_keeps_what_came(tmp_path: Path, large: tuple[Members, bytes]) -> None:
    """Ctrl-C is how most long commands end."""
    members, raw = large
    stuck = asyncio.Event()

    async def slow(start: int) -> AsyncGenerator[bytes, None]:
        yield raw[start : len(raw) - (1 << 20)]
        stuck.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        saving = group.create_task(save(tmp_path / "x.tar", members, slow, silent))
        await stuck.wait()
        saving.cancel()
    sender = Sender(raw)
    await save(tmp_path / "x.tar", members, sender, silent)
    assert sender.asked == [members.every[2].end]
    assert (tmp_path / "x.tar").read_bytes() == raw


def test_reading_again_ends_when_it_is_told_to(tmp_path: Path, large: tuple[Members, bytes]) -> None:
    """Forty gigabytes take a minute to read, and Ctrl-C must not."""
    members, raw = large
    (tmp_path / "x").write_bytes(raw)
    assert kept_prefix(tmp_path / "x", members, lambda: True) == 0


async def test_two_do_not_write_one_file(tmp_path: Path, members: Members, raw: bytes) -> None:
    """Each would cut off what the other wrote."""
    fd = os.open(tmp_path / "x.tar.partial", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(BadBundle, match="another process"):
        await save(tmp_path / "x.tar", members, Sender(raw), silent)
    os.close(fd)


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, members: Members, raw: bytes) -> None:
    """The sentence says which file, and why."""
    with pytest.raises(BadBundle, match=r"cannot write .*/none/x\.tar\.partial: No such file"):
        await save(tmp_path / "none" / "x.tar", members, Sender(raw), silent)
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(BadBundle, match=r"cannot write .*: it is a folder"):
        await save(tmp_path / "x.tar", members, Sender(raw), silent)


def test_the_members_survive_json(members: Members) -> None:
    """A far mirror sends them ahead."""
    assert Members.parse(members.describe()) == members


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "does not describe"),
        ({"format": 1, "total": 10240}, "does not describe"),
        ({"format": 2, "total": 10240, "members": []}, "format 2"),
        ({"format": 1, "total": 512, "members": []}, "make 10240"),
        ({"format": 1, "total": 10240, "members": [5]}, "something else"),
        ({"path": 5}, "is no file"),
        ({"path": "blobs/x"}, "is no file"),
        ({"path": "/etc/passwd"}, "absolute"),
        ({"path": "../x"}, "leads out"),
        ({"digest": "md5:0"}, "invalid digest"),
        ({"digest": None}, "is no file"),
        ({"size": -1}, "no number of bytes"),
        ({"size": True}, "no number of bytes"),
        ({"size": 1 << 62}, "no number of bytes"),
    ],
)
def test_what_does_not_describe_a_bundle_is_refused(said: Any, why: str) -> None:
    """It came over the network."""
    file = {"path": "SHA256SUMS", "digest": f"sha256:{'a' * 64}", "size": 5}
    if isinstance(said, dict) and not said.keys() & {"format"}:
        said = {"format": 1, "total": 10240, "members": [file | said]}
    with pytest.raises(BadBundle, match=why):
        Members.parse(said)


async def test_nothing_else_is_left_beside_the_file(tmp_path: Path, members: Members, raw: bytes) -> None:
    """The folder may be a USB stick that is given away."""
    (tmp_path / "stick").mkdir()
    await save(tmp_path / "stick" / "x.tar", members, Sender(raw), silent)
    assert everything(tmp_path / "stick").keys() == {"x.tar"}


async def test_what_is_no_file_is_not_replaced_and_a_link_is_followed(
    tmp_path: Path, members: Members, raw: bytes
) -> None:
    """As root a bundle once took the place of /dev/full."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadBundle, match="no file that can be replaced"):
        await save(tmp_path / "pipe", members, Sender(raw), silent)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "real.tar").write_bytes(b"older")
    (tmp_path / "link.tar").symlink_to("real.tar")
    await save(tmp_path / "link.tar", members, Sender(raw), silent)
    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "real.tar").read_bytes() == raw
