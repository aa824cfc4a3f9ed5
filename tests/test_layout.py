"""The layout: where everything lies, and that nothing can lie anywhere else."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import StoreUnusable
from mirror.store import Layout
from mirror.store.layout import write_whole
from mirror.values import Digest, Invalid, ModelName
from tests.stored import files, made

LAYOUT = Layout(Path("/srv/models"), Path("/srv/state"))
NASTY = st.sampled_from(
    ["..", ".", "%2e%2e", "..%2f", "/", "\\", "\0", "\n", "~", "a" * 300, "é", ":", "://", "@", "m"]
)


@given(st.lists(NASTY | st.text(max_size=5), max_size=8).map("".join) | st.text())
def test_no_text_leads_a_model_out_of_its_folder(text: str) -> None:
    """Names come from the network; four levels below the base is where Ollama looks, and nowhere else."""
    try:
        name = ModelName.parse(text)
    except Invalid:
        return
    for path, base in ((LAYOUT.manifest(name), LAYOUT.manifests), (LAYOUT.staged_manifest(name), LAYOUT.staged)):
        parts = Path(os.path.normpath(path)).relative_to(base).parts
        assert parts == (name.host, name.namespace, name.model, name.tag)
        assert not any(part.startswith(".") or "\0" in part for part in parts)


@given(
    st.tuples(NASTY | st.text(max_size=4), NASTY).map("".join), st.sampled_from(["tag", "model", "namespace", "host"])
)
def test_no_text_leads_a_part_out_of_its_folder(text: str, part: str) -> None:
    """The parts of a request's path become a name without being parsed as one text."""
    parts = {"host": "h", "namespace": "n", "model": "m", "tag": "t"} | {part: text}
    try:
        path = LAYOUT.manifest(ModelName(**parts))
    except Invalid:
        return
    assert len(Path(os.path.normpath(path)).relative_to(LAYOUT.manifests).parts) == 4


@given(st.text() | st.tuples(st.sampled_from(["sha256:", "sha256-"]), st.text(max_size=70)).map("".join))
def test_no_text_leads_a_blob_out_of_its_folder(text: str) -> None:
    """Digests come from the network too, in paths and inside manifests."""
    try:
        digest = Digest.parse(text)
    except Invalid:
        return
    assert Path(os.path.normpath(LAYOUT.blob(digest))).parent == LAYOUT.blobs
    assert Path(os.path.normpath(LAYOUT.partial(digest))).parent == LAYOUT.partials
    assert Path(os.path.normpath(LAYOUT.record(digest))).parent == LAYOUT.partials


def test_the_tree_is_the_one_of_ollama() -> None:
    """The folder can be given to an Ollama as OLLAMA_MODELS, hosts with a port included."""
    name = ModelName.parse("localhost:5000/ns/m:t")
    assert str(LAYOUT.manifest(name)) == "/srv/models/manifests/localhost:5000/ns/m/t"
    assert str(LAYOUT.blob(Digest("0" * 64))) == f"/srv/models/blobs/sha256-{'0' * 64}"


def test_making_it_again_changes_nothing(tmp_path: Path) -> None:
    """Every start does so."""
    layout = made(tmp_path)
    (layout.blobs / "x").write_bytes(b"x")
    layout.make()
    assert files(tmp_path) == {"store/blobs/x"}
    assert os.stat(layout.state).st_mode & 0o777 == 0o700


def test_the_folder_above_is_not_made(tmp_path: Path) -> None:
    """A mistyped path, or a disk that is not mounted, must not become a new empty store."""
    with pytest.raises(StoreUnusable, match="cannot make"):
        Layout(tmp_path / "missing" / "store", tmp_path / "state").make()


@pytest.mark.parametrize("which", ["store", "state", "store/blobs", "state/partial"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, which: str) -> None:
    """It is somebody's file; nothing is done to it."""
    (tmp_path / which).parent.mkdir(exist_ok=True)
    (tmp_path / which).write_bytes(b"mine")
    with pytest.raises(StoreUnusable):
        made(tmp_path)
    assert (tmp_path / which).read_bytes() == b"mine"


@pytest.mark.parametrize("inside", ["tmp", "tmp/models", "partial", "staged/x", "quarantine"])
def test_a_store_inside_what_the_state_tidies_up_is_refused(tmp_path: Path, inside: str) -> None:
    """Files being written are cleared away at every start: a store in their folder would go with them."""
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "weights").write_bytes(b"mine")
    with pytest.raises(StoreUnusable, match="cannot be inside"):
        Layout(tmp_path / inside, tmp_path).make()
    assert files(tmp_path) == {f"{inside}/weights"}


@pytest.mark.parametrize("inside", ["blobs", "blobs/state", "manifests/state"])
def test_a_state_inside_what_ollama_tidies_up_is_refused(tmp_path: Path, inside: str) -> None:
    """Ollama deletes what it does not know in blobs/ and stumbles over it in manifests/."""
    with pytest.raises(StoreUnusable, match="cannot be inside"):
        Layout(tmp_path, tmp_path / inside).make()


def test_a_link_does_not_hide_that_one_is_inside_the_other(tmp_path: Path) -> None:
    """What counts is where the files are."""
    (tmp_path / "state" / "tmp").mkdir(parents=True)
    (tmp_path / "models").symlink_to(tmp_path / "state" / "tmp")
    with pytest.raises(StoreUnusable, match="cannot be inside"):
        Layout(tmp_path / "models", tmp_path / "state").make()


def test_names_are_the_four_level_files_whose_parts_are_valid(tmp_path: Path) -> None:
    """Ollama's own glob; what else lies there is not ours."""
    layout = made(tmp_path)
    for path in ("h:1/n/m/t", "h/n/m/.tmp1", "h/n.s/m/t", "h/n/m/t2/deeper", "h/n/short", "h/n/m/ü"):
        (layout.manifests / path).parent.mkdir(parents=True, exist_ok=True)
        (layout.manifests / path).write_bytes(b"{}")
    (layout.manifests / "h/n/m/dangling").symlink_to("nowhere")
    assert [str(name) for name in layout.names(layout.manifests)] == ["h:1/n/m:t"]


def test_a_whole_file_replaces_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """A reader sees the old file or the new one."""
    target, temporary = tmp_path / "a" / "b" / "c", tmp_path / "t"
    for content in (b"old", b"new"):
        write_whole(target, content, temporary)
        assert target.read_bytes() == content
    assert files(tmp_path) == {"a/b/c"}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """Half a manifest would be no manifest, and what is left behind would fill the disk."""
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "target", b"new", tmp_path / "t")
    assert files(tmp_path) == set()
