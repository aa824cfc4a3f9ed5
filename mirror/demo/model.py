"""Models made up on the spot, in the form registry.ollama.ai holds them: what the demo and the tests pull."""

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mirror.errors import DigestMismatch
from mirror.values import Descriptor, Digest, Manifest, ModelName
from mirror.values.manifest import DOCKER_MANIFEST

CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."
MODEL_TYPE = f"{LAYER_TYPE}model"

TEXT_LAYERS: Sequence[tuple[str, bytes]] = (
    (f"{LAYER_TYPE}template", b"{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}\n"),
    (f"{LAYER_TYPE}license", b"Made-up bytes, free for any use.\n"),
    (f"{LAYER_TYPE}params", b'{"stop":["<|end|>"],"temperature":0.7}'),
)

_BLOCK_BYTES = 4 << 20
_ALIGNMENT = 32
_GGUF_UINT32, _GGUF_STRING, _GGML_INT8 = 4, 8, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """A model on disk: ``blobs/sha256-HEX`` and ``manifests/NS/MODEL/TAG`` below ``folder``.

    ``blobs`` are in the order Ollama fetches them: the layers, the large one first, then the config.
    """

    name: str
    tag: str
    manifest: bytes
    blobs: tuple[Descriptor, ...]
    folder: Path

    @property
    def size(self) -> int:
        """The bytes of all blobs."""
        return sum(one.size for one in self.blobs)

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies."""
        return blob_path(self.folder, digest)


def blob_path(folder: Path, digest: Digest) -> Path:
    """Return where a folder in this form keeps a blob."""
    return folder / "blobs" / digest.filename


def manifest_path(folder: Path, name: ModelName) -> Path:
    """Return where a folder in this form keeps a manifest; the host plays no part, other than in Ollama's own."""
    return folder / "manifests" / name.namespace / name.model / name.tag


@contextmanager
def unfinished(final: Path, suffix: str) -> Iterator[int]:
    """Open the file that is to become ``final``, at what it holds already; it gets its name if all goes well."""
    partial = final.with_name(final.name + suffix)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)
    partial.rename(final)


def check_blob(path: Path, wanted: Digest) -> None:
    """Delete the file and raise DigestMismatch unless it holds the blob; blocks while it reads."""
    with path.open("rb") as file:
        got = Digest(file_digest(file, "sha256").hexdigest())
    if got != wanted:
        path.unlink()
        raise DigestMismatch(wanted, got)


def write_model(
    folder: Path,
    *,
    size: int,
    seed: int = 0,
    name: str = "library/demo",
    tag: str = "latest",
    extra_layers: Sequence[tuple[str, bytes]] = TEXT_LAYERS,
    progress: Callable[[int], None] | None = None,
) -> DemoModel:
    """Write a model whose weights are ``size`` bytes into ``folder``, which may hold others already.

    The same arguments give the same bytes. ``extra_layers`` are media types and contents, in order.
    ``progress`` is called with the count of bytes each time some were written. Blocks: call it in a thread.
    """
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    report = progress or _silent
    weights = Descriptor(_write_weights(folder, size, seed, report), size, MODEL_TYPE)
    texts = [_write_blob(folder, content, media_type, report) for media_type, content in extra_layers]
    config = _write_blob(folder, _config(), CONFIG_TYPE, report)
    raw = manifest_bytes(config, [weights, *texts])
    path = manifest_path(folder, ModelName.parse(f"{name}:{tag}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return DemoModel(name=name, tag=tag, manifest=raw, blobs=Manifest.parse(raw).blobs, folder=folder)


def _silent(count: int) -> None:
    """Nobody asked to hear of progress."""


def _write_weights(folder: Path, size: int, seed: int, report: Callable[[int], None]) -> Digest:
    """Write header and pseudo-random bytes, hashed on the way, and name the file by its digest."""
    # AES in counter mode is the fastest deterministic noise at hand: 1.4 GB/s against 0.2 of random.randbytes.
    key = sha256(f"mirror demo {seed}".encode()).digest()
    noise = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(_BLOCK_BYTES)
    hasher = sha256()
    unnamed = folder / "blobs" / f"unnamed-{seed}-{size}"
    with unnamed.open("wb") as file:
        block, left = _gguf_header(size)[:size], size
        while block:
            file.write(block)
            hasher.update(block)
            report(len(block))
            left -= len(block)
            block = noise.update(zeros[:left])
    digest = Digest(hasher.hexdigest())
    unnamed.rename(blob_path(folder, digest))
    return digest


def _write_blob(folder: Path, content: bytes, media_type: str, report: Callable[[int], None]) -> Descriptor:
    digest = Digest.of(content)
    blob_path(folder, digest).write_bytes(content)
    report(len(content))
    return Descriptor(digest, len(content), media_type)


def _config() -> bytes:
    view = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "8.0B",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
    }
    return json.dumps(view, separators=(",", ":")).encode()


def manifest_bytes(config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """Return the manifest of a model, as Ollama would write it."""

    def entry(one: Descriptor) -> dict[str, object]:
        return {"mediaType": one.media_type, "digest": str(one.digest), "size": one.size}

    view = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": entry(config),
        "layers": [entry(one) for one in layers],
    }
    return json.dumps(view, separators=(",", ":")).encode()


def _gguf_header(size: int) -> bytes:
    """Return the head of a GGUF file (version 3) of ``size`` bytes with one tensor that fills the rest."""
    values = [
        _gguf_value("general.architecture", "llama"),
        _gguf_value("general.name", "demo"),
        _gguf_value("general.alignment", _ALIGNMENT),
        _gguf_value("general.file_type", 15),
        _gguf_value("llama.context_length", 8192),
        _gguf_value("llama.embedding_length", 4096),
        _gguf_value("llama.block_count", 32),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(values)) + b"".join(values)
    head += _gguf_text("token_embd.weight") + struct.pack("<I", 1)
    data_at = -(-(len(head) + 20) // _ALIGNMENT) * _ALIGNMENT
    head += struct.pack("<QIQ", max(0, size - data_at), _GGML_INT8, 0)
    return head.ljust(data_at, b"\0")


def _gguf_value(key: str, value: str | int) -> bytes:
    if isinstance(value, int):
        return _gguf_text(key) + struct.pack("<II", _GGUF_UINT32, value)
    return _gguf_text(key) + struct.pack("<I", _GGUF_STRING) + _gguf_text(value)


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
