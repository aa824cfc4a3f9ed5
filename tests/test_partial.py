"""Partials: bytes on their way in, what is remembered of them, and the gate to blobs/."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import BrokenStore, DigestMismatch, StoreFull
from mirror.store import Layout, Partial
from mirror.store.partial import tidy
from mirror.values import ByteRange, Digest, RangeSet
from tests.stored import files, made

CONTENT = random.Random(1).randbytes(300_000)
DIGEST, SIZE = Digest.of(CONTENT), len(CONTENT)
HALF = ByteRange(SIZE // 2, SIZE)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty store."""
    return made(tmp_path)


def leave(layout: Layout, span: ByteRange = HALF) -> None:
    """What a process that was killed leaves: these bytes, recorded."""
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.write(span.start, CONTENT[span.start : span.stop])
    partial.record(RangeSet([span]))
    partial.close()


def resumed(layout: Layout, size: int = SIZE) -> list[ByteRange]:
    """What the next process finds."""
    partial = Partial.open(layout, DIGEST, size)
    partial.close()
    assert layout.partial(DIGEST).stat().st_size == size
    return list(partial.resumed)


def test_bytes_written_in_any_order_by_many_threads_are_published_under_their_digest(layout: Layout) -> None:
    """Promise 1: a name in blobs/ means whole and proven."""
    pieces = [ByteRange(at, min(at + 7919, SIZE)) for at in range(0, SIZE, 7919)]
    random.Random(2).shuffle(pieces)
    partial = Partial.open(layout, DIGEST, SIZE)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda span: partial.write(span.start, CONTENT[span.start : span.stop]), pieces))
    partial.record(RangeSet(pieces))
    for front in (0, 1, 100_000, SIZE):
        partial.advance(front)
    partial.publish()
    assert os.pread(partial.fd, SIZE, 0) == CONTENT, "who reads the partial reads on"
    partial.close()
    assert layout.blob(DIGEST).read_bytes() == CONTENT
    assert files(layout.root.parent) == {f"store/blobs/{DIGEST.filename}"}


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_one_wrong_bit_anywhere_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    """Promise 1: nothing is in blobs/ afterwards."""
    layout = made(tmp_path_factory.mktemp("bits"))
    wrong = bytearray(CONTENT)
    wrong[at] ^= flip
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.write(0, bytes(wrong))
    partial.advance(SIZE)
    with pytest.raises(DigestMismatch) as mismatch:
        partial.publish()
    partial.drop()
    partial.close()
    assert (mismatch.value.wanted, mismatch.value.got) == (DIGEST, Digest.of(bytes(wrong)))
    assert files(layout.root.parent) == set()


@pytest.mark.parametrize("front", [0, 1, SIZE - 1])
def test_what_is_not_hashed_to_its_end_is_not_proven(layout: Layout, front: int) -> None:
    """Promise 1: the right bytes are not enough, somebody must have looked at them."""
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.write(0, CONTENT)
    partial.advance(front)
    with pytest.raises(DigestMismatch):
        partial.publish()
    partial.close()
    assert files(layout.blobs) == set()


def test_a_prefix_whose_hash_is_right_is_not_a_blob_of_another_size(layout: Layout) -> None:
    """A manifest may name a digest with a size it does not have."""
    partial = Partial.open(layout, DIGEST, SIZE + 1)
    partial.write(0, CONTENT)
    partial.advance(SIZE)
    with pytest.raises(DigestMismatch):
        partial.publish()
    partial.close()


def test_an_empty_blob_can_be_published(layout: Layout) -> None:
    """A layer of no bytes has a digest too."""
    empty = Digest.of(b"")
    partial = Partial.open(layout, empty, 0)
    partial.advance(0)
    partial.publish()
    partial.close()
    assert layout.blob(empty).read_bytes() == b""


def test_the_next_process_goes_on_with_what_was_recorded(layout: Layout) -> None:
    """Promise 3: forty gigabytes are not fetched twice because of a restart."""
    leave(layout)
    tidy(layout)
    partial = Partial.open(layout, DIGEST, SIZE)
    assert list(partial.resumed) == [HALF]
    partial.write(0, CONTENT[: HALF.start])
    partial.advance(SIZE)
    partial.publish()
    partial.close()
    assert layout.blob(DIGEST).read_bytes() == CONTENT


def test_bytes_that_were_not_recorded_are_not_believed(layout: Layout) -> None:
    """Promise 3: they may not have reached the disk."""
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.write(0, CONTENT)
    partial.close()
    assert resumed(layout) == []
    assert layout.partial(DIGEST).read_bytes() == bytes(SIZE)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"size": 300000}',
        b'{"size": 299999, "ranges": [[0, 5]]}',
        b'{"size": 300000, "ranges": [[0, 300001]]}',
        b'{"size": 300000, "ranges": [[-5, 5]]}',
        b'{"size": 300000, "ranges": [[5, 3]]}',
        b'{"size": 300000, "ranges": [[0.5, 3]]}',
        b'{"size": 300000, "ranges": [[false, true]]}',
        b'{"size": 300000, "ranges": [["0", "3"]]}',
        b'{"size": 300000, "ranges": [[0, 1, 2]]}',
        b'{"size": 300000, "ranges": [5]}',
        b'{"size": 300000, "ranges": {"0": 5}}',
        b'{"size": 300000, "ranges": "ab"}',
        b'{"size": 300000, "ranges": [[0, 1e400]]}',
        b'{"size": 300000, "ranges": [[0, 100000000000000000000000000000]]}',
        b'{"size": 1e400, "ranges": [[0, 5]]}',
    ],
)
def test_a_record_that_cannot_be_is_ignored(layout: Layout, said: bytes) -> None:
    """Promise 3: rather fetch again than believe a damaged or foreign file; and a start never fails for it."""
    leave(layout)
    layout.record(DIGEST).write_bytes(said)
    assert resumed(layout) == []
    leave(layout)
    layout.record(DIGEST).write_bytes(said)
    tidy(layout)
    assert files(layout.partials) == set()


def test_a_record_is_not_believed_of_a_file_of_another_size(layout: Layout) -> None:
    """Somebody has cut the file, or it is for another size of the same digest."""
    leave(layout)
    os.truncate(layout.partial(DIGEST), SIZE - 1)
    assert resumed(layout) == []
    leave(layout)
    assert resumed(layout, SIZE + 1) == []


def test_an_old_record_is_never_believed_of_a_new_file(layout: Layout) -> None:
    """Promise 3: killed before its first record, the new file is all zeros where the old one had bytes."""
    leave(layout)
    layout.partial(DIGEST).unlink()
    assert resumed(layout) == []
    assert resumed(layout) == []


def test_a_dropped_partial_is_gone_but_readable_to_the_end(layout: Layout) -> None:
    """Readers are told by the fill; their descriptors must not fail under them."""
    leave(layout)
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.drop()
    partial.drop()
    assert files(layout.state) == set()
    assert os.pread(partial.fd, SIZE, HALF.start) == CONTENT[HALF.start :]
    partial.close()
    partial.close()


def test_a_file_that_was_cut_ends_the_hashing(layout: Layout) -> None:
    """It must not wait for ever for bytes that are no longer there."""
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.write(0, CONTENT)
    os.truncate(layout.partial(DIGEST), 1000)
    with pytest.raises(BrokenStore, match="ends at 1000"):
        partial.advance(SIZE)
    partial.close()


@pytest.mark.parametrize("size", [1 << 61, (1 << 63) - 1, 1 << 80])
def test_a_blob_larger_than_any_file_can_be_is_no_room(layout: Layout, size: int) -> None:
    """Promise 5: the size comes from the network; what cannot be kept is passed through."""
    with pytest.raises(StoreFull):
        Partial.open(layout, DIGEST, size)
    assert files(layout.state) == set()


def test_a_write_after_the_end_is_refused(layout: Layout) -> None:
    """A thread that comes late must not write into whatever has the descriptor's number now."""
    partial = Partial.open(layout, DIGEST, SIZE)
    partial.close()
    with pytest.raises(StoreFull):
        partial.write(0, b"x")


def test_tidying_removes_what_nobody_can_go_on_with(layout: Layout) -> None:
    """Crashes must not fill the disk bit by bit; and a folder of somebody's stops nothing."""
    leave(layout)
    other = Digest.of(b"published")
    for name in ("junk", "0" * 64, f"{'1' * 64}.json", f"{DIGEST.hex}.new", other.hex):
        (layout.partials / name).write_bytes(b"?")
    (layout.partials / f"{other.hex}.json").write_text(json.dumps({"size": 1, "ranges": [[0, 1]]}))
    layout.blob(other).write_bytes(b"published")
    (layout.partials / "folder").mkdir()
    tidy(layout)
    assert files(layout.partials) == {DIGEST.hex, f"{DIGEST.hex}.json"}
    assert resumed(layout) == [HALF]
