"""What fills a registry in tests: a pusher that speaks as Ollama does, and images for skopeo."""

import asyncio
import gzip
import io
import json
import random
import tarfile
from hashlib import md5
from pathlib import Path
from typing import BinaryIO

import aiohttp
from yarl import URL

from mirror.demo.model import DemoModel, blob_path, manifest_path
from mirror.values import Descriptor, Digest, Manifest, ModelName
from mirror.values.manifest import OCI_INDEX, OCI_MANIFEST

_AGENT = {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26.8"}
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


async def push_model(
    url: str, model: DemoModel | Path, name: str | None = None, *, part_bytes: int = 100_000_000
) -> Manifest:
    """Push a model as Ollama's classic path does (server/upload.go), under ``name`` or else its own.

    Where ``model`` is a folder, ``name`` says which of its models. The manifest is sent byte for byte.
    """
    folder = model.folder if isinstance(model, DemoModel) else model
    own = f"{model.name}:{model.tag}" if isinstance(model, DemoModel) else name
    if own is None:
        raise ValueError("which model of the folder?")
    manifest = Manifest.parse(manifest_path(folder, ModelName.parse(own)).read_bytes())
    target = ModelName.parse(name or own)
    base = URL(url) / "v2" / target.namespace / target.model
    async with aiohttp.ClientSession(headers=_AGENT, raise_for_status=True) as session:
        for blob in manifest.blobs:
            await _push_blob(session, base, blob_path(folder, blob.digest), blob, part_bytes)
        headers = {"Content-Type": manifest.media_type}
        async with session.put(base / "manifests" / target.tag, data=io.BytesIO(manifest.raw), headers=headers):
            return manifest


async def _push_blob(session: aiohttp.ClientSession, base: URL, path: Path, blob: Descriptor, part_bytes: int) -> None:
    async with session.head(base / "blobs" / str(blob.digest), raise_for_status=False) as answer:
        if answer.status == 200:
            return
    async with session.post(base / "blobs/uploads/") as answer:
        location = _next(answer)
    sums = b""
    with path.open("rb") as file:
        for at in range(0, blob.size, part_bytes):
            part, part_sum = await asyncio.to_thread(_part, file, part_bytes)
            sums += part_sum
            headers = {
                "Content-Range": f"{at}-{min(at + part_bytes, blob.size) - 1}",
                "Content-Type": "application/octet-stream",
                "X-Redirect-Uploads": "1",
            }
            async with session.patch(location, data=part, headers=headers) as answer:
                location = _next(answer)
    etag = f"{md5(sums).hexdigest()}-{len(sums) // 16}"
    async with session.put(location.update_query(digest=str(blob.digest), etag=etag)):
        return


def _part(file: BinaryIO, size: int) -> tuple[io.BytesIO, bytes]:
    content = file.read(size)
    return io.BytesIO(content), md5(content).digest()


def _next(answer: aiohttp.ClientResponse) -> URL:
    """Return where the upload goes on: absolute, for Ollama cannot do with less."""
    location = URL(answer.headers.get("Docker-Upload-Location") or answer.headers["Location"], encoded=True)
    if not location.absolute:
        raise ValueError(f"no Host in request URL: {location}")
    return location


def make_oci_image(folder: Path, *, tag: str = "latest", seed: int = 0) -> Manifest:
    """Write an image of two layers as an OCI layout, to be copied from ``oci:FOLDER:TAG``."""
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed)
    tars = [_tar(f"file-{number}", noise.randbytes(300_000 + number)) for number in range(2)]
    layers = [_keep(folder, gzip.compress(content, mtime=0), _OCI_LAYER) for content in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(content)) for content in tars]},
    }
    image = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _keep(folder, json.dumps(config).encode(), _OCI_CONFIG),
        "layers": layers,
    }
    raw = json.dumps(image).encode()
    entry = {**_keep(folder, raw, OCI_MANIFEST), "annotations": {"org.opencontainers.image.ref.name": tag}}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return Manifest.parse(raw)


def _keep(folder: Path, content: bytes, media_type: str) -> dict[str, object]:
    digest = Digest.of(content)
    (folder / "blobs" / "sha256" / digest.hex).write_bytes(content)
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}


def _tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
