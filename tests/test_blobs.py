"""Proven blobs at rest: reading them, and dropping them under readers."""

import os
from pathlib import Path

import pytest

from mirror.store import BlobStore, Layout
from mirror.values import Digest
from tests.stored import made, publish

CONTENT = b"proven bytes"
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store with one blob in it."""
    layout = made(tmp_path)
    publish(layout, CONTENT)
    return layout


def test_an_open_blob_stays_readable_when_it_is_dropped(layout: Layout) -> None:
    """Promise 4: a client in the middle of a download must not be cut off by a removal."""
    blobs = BlobStore(layout)
    first, second = blobs.open(DIGEST), blobs.open(DIGEST)
    assert first is not None
    assert second is not None
    assert blobs.drop(DIGEST) == len(CONTENT)
    first.close()
    first.close()
    assert layout.blob(DIGEST).exists(), "a blob in use is not dropped while one reader is left"
    assert os.pread(second.fd, 100, 0) == CONTENT
    second.close()
    assert not layout.blob(DIGEST).exists(), "the file goes when the last reader closes"


def test_a_dropped_blob_that_is_named_again_stays(layout: Layout) -> None:
    """Promise 2: its new model is complete, and the reader's leaving must not change that."""
    blobs = BlobStore(layout)
    with blobs.open(DIGEST) or pytest.fail("it is there"):
        blobs.drop(DIGEST)
        blobs.spare(DIGEST)
    assert blobs.size(DIGEST) == len(CONTENT)


def test_a_drop_with_no_reader_frees_at_once_and_a_second_frees_nothing(layout: Layout) -> None:
    """The sum of what was freed is shown to the user."""
    blobs = BlobStore(layout)
    assert (blobs.drop(DIGEST), blobs.drop(DIGEST)) == (len(CONTENT), 0)
    assert (blobs.size(DIGEST), blobs.open(DIGEST), blobs.read(DIGEST, 100)) == (None, None, None)


def test_a_small_blob_is_read_whole_or_not_at_all(layout: Layout) -> None:
    """A config is read into memory; forty gigabytes are not."""
    blobs = BlobStore(layout)
    assert blobs.read(DIGEST, len(CONTENT)) == CONTENT
    assert blobs.read(DIGEST, len(CONTENT) - 1) is None
    blobs.drop(DIGEST)
    assert not layout.blob(DIGEST).exists(), "reading leaves no reader behind"


def test_what_is_no_file_is_no_blob(layout: Layout) -> None:
    """Not even when it has a blob's name; opening a pipe must not wait for somebody to write into it."""
    pipe, folder = Digest.of(b"pipe"), Digest.of(b"folder")
    os.mkfifo(layout.blob(pipe))
    layout.blob(folder).mkdir()
    blobs = BlobStore(layout)
    for digest in (pipe, folder):
        assert (blobs.open(digest), blobs.size(digest)) == (None, None)
    assert dict(blobs) == {DIGEST: len(CONTENT)}


@pytest.mark.parametrize("name", ["sha256:" + "a" * 64, "sha256-" + "A" * 64, "sha256-" + "a" * 64 + "-partial", "x"])
def test_what_does_not_have_a_blobs_name_is_none(layout: Layout, name: str) -> None:
    """An older Ollama's partial files and other spellings cannot be opened by a digest, so they are not counted."""
    (layout.blobs / name).write_bytes(b"?")
    assert dict(BlobStore(layout)) == {DIGEST: len(CONTENT)}


def test_a_folder_that_has_gone_holds_nothing(layout: Layout) -> None:
    """The page that counts blobs is served all the same when a disk is pulled out."""
    layout.root.rename(layout.root.with_name("elsewhere"))
    assert dict(BlobStore(layout)) == {}
