"""Manifests: the raw bytes are kept, what they name is read, and hostile ones are refused."""

import json
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.values import MAX_MANIFEST_BYTES, Descriptor, Digest, InvalidManifest, Manifest
from mirror.values.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.stored import CONFIG, described, manifest_of

LAYER = described(b"a")
PLAIN = json.dumps({"layers": [LAYER]}).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        PLAIN + b"\n",
        b" \r\n\t" + PLAIN.replace(b",", b" ,\n") + b"\n\n",
        json.dumps({"layers": [LAYER], "unknown": {"deep": [1, None]}, "from": "/a/b"}).encode(),
        json.dumps({"layers": [LAYER], "é": "ü"}, ensure_ascii=False).encode(),
        PLAIN[:-1] + b', "layers": ' + json.dumps([described(b"b")]).encode() + b"}",
    ],
)
def test_the_raw_bytes_are_kept_and_named_by_their_digest(raw: bytes) -> None:
    """A model's id is the digest of the bytes the registry sent: written anew, it would be another model."""
    manifest = Manifest.parse(raw)
    assert manifest.raw == raw
    assert manifest.digest.hex == sha256(raw).hexdigest()


def test_every_blob_is_named_once_layers_before_config() -> None:
    """Ollama fetches in this order; a blob named twice is fetched once."""
    manifest = manifest_of(b"b", b"a", b"b")
    assert [one.digest for one in manifest.blobs] == [Digest.of(one) for one in (b"b", b"a", CONFIG)]
    assert len(manifest.layers) == 3
    assert manifest.config == Descriptor(Digest.of(CONFIG), len(CONFIG), str(LAYER["mediaType"]))


def test_the_size_counts_duplicates_twice() -> None:
    """So does Ollama, and ours is compared with its list."""
    assert manifest_of(b"bb", b"bb").size == 4 + len(CONFIG)


def test_a_config_may_also_be_a_layer() -> None:
    """Such models exist (Ollama v0.32.10 mended its verification of them)."""
    assert [one.digest for one in manifest_of(b"a", CONFIG).blobs] == [Digest.of(b"a"), Digest.of(CONFIG)]


def test_five_thousand_layers_are_read() -> None:
    """Tensor models have thousands."""
    manifest = manifest_of(*(str(i).encode() for i in range(5000)))
    assert len(manifest.blobs) == 5001


def test_an_empty_blob_is_a_blob() -> None:
    """Its size of 0 is no missing size."""
    assert manifest_of(b"").layers[0].size == 0


@pytest.mark.parametrize("config", [None, {}, {"digest": ""}, {"digest": "", "size": 0}, "none", [], 5])
def test_a_manifest_may_be_without_config(config: object) -> None:
    """Ollama takes an empty digest for no config."""
    assert Manifest.parse(json.dumps({"layers": [LAYER], "config": config}).encode()).config is None


def test_an_index_names_its_manifests_as_blobs() -> None:
    """The manifests of an index are kept as blobs are."""
    index = Manifest.parse(json.dumps({"manifests": [described(b"x"), described(b"y")]}).encode())
    assert index.media_type == OCI_INDEX
    assert [one.digest for one in index.blobs] == [Digest.of(b"x"), Digest.of(b"y")]
    assert (index.config, index.layers, index.size) == (None, (), 0)


@pytest.mark.parametrize(
    ("inside", "header", "expected"),
    [
        (OCI_MANIFEST, "", OCI_MANIFEST),
        (OCI_MANIFEST, DOCKER_MANIFEST, OCI_MANIFEST),
        (None, OCI_MANIFEST, OCI_MANIFEST),
        (None, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (None, "text/plain; charset=utf-8", DOCKER_MANIFEST),
        (None, "", DOCKER_MANIFEST),
        ("text/plain", OCI_MANIFEST, OCI_MANIFEST),
        ("evil\r\nSet-Cookie: x", "evil\r\nX: y", DOCKER_MANIFEST),
        (5, "text/plain", DOCKER_MANIFEST),
    ],
)
def test_only_a_manifest_type_is_believed(inside: object, header: str, expected: str) -> None:
    """registry.ollama.ai has said text/plain, and what is said ends up in our own headers."""
    raw = json.dumps({"layers": [LAYER], "mediaType": inside}).encode()
    assert Manifest.parse(raw, header).media_type == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"5",
        b"{",
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN + PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.decode().encode("utf-16"),
        PLAIN.decode().encode("utf-32"),
        PLAIN.replace(b'"layers"', b'"\xff": 1, "layers"'),
        b"<!doctype html><title>Sign in</title>",
        b'{"layers": []}',
        b'{"layers": null, "config": null}',
        b'{"layers": {}}',
        b'{"layers": "abc"}',
        b'{"manifests": 5}',
        b'{"layers": [null]}',
        b'{"layers": ["sha256:x"]}',
        b'{"layers": [[]]}',
        b'{"layers": [{}]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"layers": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"layers": [' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"]}",
        b'{"layers": [1' + b"0" * 5000 + b"]}",
        PLAIN[:-1] + b', "x": NaN}',
        PLAIN[:-1] + b', "x": -Infinity}',
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    """What answers in place of a registry, a captive portal or an attacker, must not become a model."""
    with pytest.raises(InvalidManifest) as refused:
        Manifest.parse(raw)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("size", [-1, 1.0, 1e9, "5", None, True, [], {}, 1 << 62, 10**4000])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    """A file of that size is made before the first byte comes."""
    with pytest.raises(InvalidManifest):
        Descriptor.parse(described(b"a", size=size))


@pytest.mark.parametrize("digest", [None, 5, "", "sha256:", "sha512:" + "0" * 128, "../../etc/passwd", [[[]]], {}])
def test_a_digest_that_is_none_is_refused(digest: object) -> None:
    """It becomes a file name and a URL."""
    with pytest.raises(InvalidManifest):
        Descriptor.parse(described(b"a", digest=digest))


@pytest.mark.parametrize("media_type", [None, 5, [], {}])
def test_a_layers_type_that_is_no_text_is_left_empty(media_type: object) -> None:
    """It is shown and nothing more, and null is not the word None."""
    assert Descriptor.parse(described(b"a", mediaType=media_type)).media_type == ""


def test_the_limit_of_size_is_checked_before_anything_is_read() -> None:
    """Parsing takes many times the memory of the text."""
    padded = PLAIN + b" " * (MAX_MANIFEST_BYTES - len(PLAIN))
    assert Manifest.parse(padded).layers
    with pytest.raises(InvalidManifest, match="at most"):
        Manifest.parse(padded + b" ")


@given(st.integers(0, 1200))
def test_no_depth_of_nesting_escapes_as_another_error(depth: int) -> None:
    """A face turns InvalidManifest into an answer; anything else would be a crash somebody can ask for."""
    for inside in (b"[" * depth + b"]" * depth, b'{"digest":' * depth + b"1" + b"}" * depth):
        with pytest.raises(InvalidManifest):
            Manifest.parse(b'{"layers": ' + inside + b"}")
        with pytest.raises(InvalidManifest):
            Manifest.parse(b'{"layers": [' + inside + b"]}")


@given(st.dictionaries(st.sampled_from(["layers", "config", "manifests", "mediaType", "x"]), JSON) | JSON)
def test_any_json_is_a_manifest_or_refused(view: object) -> None:
    """There is no third way."""
    raw = json.dumps(view).encode()
    with suppress(InvalidManifest):
        assert Manifest.parse(raw).raw == raw


@given(st.binary())
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    """There is no third way for what is not even JSON."""
    with pytest.raises(InvalidManifest):
        Manifest.parse(raw)
