"""The mirror between programs that neither side wrote: docker-registry above, skopeo, oras and curl below."""

import asyncio
import hashlib
from pathlib import Path

import aiohttp
import oras.client

from mirror.demo.model import DemoModel, write_model
from mirror.demo.ollama import pull, pull_tensor
from mirror.values import Manifest
from tests.fakes.docker_registry import running_docker_registry, skip_without
from tests.fakes.push import make_oci_image, push_model
from tests.process import run, serving

pytestmark = skip_without("docker-registry", "skopeo")


async def _filled(url: str, folder: Path) -> tuple[DemoModel, Manifest]:
    """Put a model in Ollama's form and an ordinary image into a registry."""
    model = await asyncio.to_thread(write_model, folder / "model", size=9_000_000)
    await push_model(url, model)
    image = make_oci_image(folder / "image")
    copied = await run(
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        f"oci:{folder}/image:latest",
        f"docker://{url.removeprefix('http://')}/library/image:latest",
    )
    assert copied.code == 0, copied.err
    return model, image


async def _skopeo_copy(url: str, to: Path) -> dict[str, bytes]:
    """Copy the image out of a registry; return the files by name."""
    host = url.removeprefix("http://")
    copied = await run("skopeo", "copy", "--src-tls-verify=false", f"docker://{host}/library/image:latest", f"dir:{to}")
    assert copied.code == 0, copied.err
    return {path.name: path.read_bytes() for path in to.iterdir()}


async def test_skopeo_copies_an_image_cold_and_with_the_registry_stopped(tmp_path: Path) -> None:
    """An OCI client that knows nothing of us gets the same bytes from upstream and from the store."""
    (tmp_path / "registry").mkdir()
    async with running_docker_registry(tmp_path / "registry") as registry:
        _, image = await _filled(registry, tmp_path)
        async with serving(tmp_path / "store", registry) as (url, process):
            cold = await _skopeo_copy(url, tmp_path / "cold")
            process.terminate()
            await process.wait()
    async with serving(tmp_path / "store", registry) as (url, _):
        warm = await _skopeo_copy(url, tmp_path / "warm")
    assert cold == warm
    assert cold["manifest.json"] == image.raw


async def test_curl_reads_ranges_of_a_model_cold_and_with_the_registry_stopped(tmp_path: Path) -> None:
    """Ranges are exact for a client that joins them itself, before and after the upstream is gone."""
    (tmp_path / "registry").mkdir()
    async with running_docker_registry(tmp_path / "registry") as registry:
        model, _ = await _filled(registry, tmp_path)
        whole = model.path(model.blobs[0].digest).read_bytes()
        async with serving(tmp_path / "store", registry) as (url, _):
            assert await _curl(url, model, 8_000_000, 8_999_999, tmp_path) == whole[8_000_000:]
            assert (await pull(url, "library/demo:latest", part_min=1_000_000)).bytes == model.size
    async with serving(tmp_path / "store", registry) as (url, _):
        assert await _curl(url, model, 0, 0, tmp_path) == whole[:1]
        assert await _curl(url, model, 1234, 5_000_000, tmp_path) == whole[1234:5_000_001]
        assert (await pull(url, "library/demo:latest", part_min=1_000_000)).x_mirror_cache.keys() <= {"HIT", "STALE"}


async def _curl(url: str, model: DemoModel, first: int, last: int, folder: Path) -> bytes:
    out = folder / "curled"
    address = f"{url}/v2/library/demo/blobs/{model.blobs[0].digest}"
    done = await run("curl", "--fail", "--silent", "--range", f"{first}-{last}", "--output", str(out), address)
    assert done.code == 0, done.err
    return out.read_bytes()


async def test_both_of_ollamas_clients_pull_a_model_that_docker_registry_holds(tmp_path: Path) -> None:
    """A stock registry cannot serve Ollama by itself: with the mirror in front it can."""
    (tmp_path / "registry").mkdir()
    async with running_docker_registry(tmp_path / "registry") as registry:
        model, _ = await _filled(registry, tmp_path)
        async with serving(tmp_path / "store", registry) as (url, _):
            classic = await pull(url, "library/demo:latest", tmp_path / "classic", part_min=1_000_000)
            tensor = await pull_tensor(url, "library/demo:latest", tmp_path / "tensor")
    assert classic.manifest.raw == tensor.manifest.raw == model.manifest
    for blob in model.blobs:
        for folder in (tmp_path / "classic", tmp_path / "tensor", tmp_path / "store"):
            found = (folder / "blobs" / blob.digest.filename).read_bytes()
            assert hashlib.sha256(found).hexdigest() == blob.digest.hex


async def test_oras_pulls_the_layers_of_a_model(tmp_path: Path) -> None:
    """PyPI's oras follows our Location and Content-Range as it follows any registry's."""
    (tmp_path / "registry").mkdir()
    async with running_docker_registry(tmp_path / "registry") as registry:
        model, _ = await _filled(registry, tmp_path)
        async with serving(tmp_path / "store", registry) as (url, _):
            got = await asyncio.to_thread(_oras, url, tmp_path / "oras")
    assert got == {blob.digest.hex for blob in model.blobs}


def _oras(url: str, folder: Path) -> set[str]:
    """Fetch a model's manifest and blobs; return the digests of what came."""
    folder.mkdir()
    client = oras.client.OrasClient(hostname=url.removeprefix("http://"), insecure=True, tls_verify=False)
    name = f"{url.removeprefix('http://')}/library/demo:latest"
    manifest = client.get_manifest(name, allowed_media_type=["application/vnd.docker.distribution.manifest.v2+json"])
    digests = set()
    for number, blob in enumerate([*manifest["layers"], manifest["config"]]):
        client.download_blob(name, blob["digest"], str(folder / str(number)))
        digests.add(hashlib.sha256((folder / str(number)).read_bytes()).hexdigest())
    client.session.close()
    return digests


async def test_tags_and_catalog_list_what_is_stored(tmp_path: Path) -> None:
    """Browsers of registries find what the store holds, which Ollama's own registry never tells them."""
    (tmp_path / "registry").mkdir()
    async with running_docker_registry(tmp_path / "registry") as registry:
        await _filled(registry, tmp_path)
        async with serving(tmp_path / "store", registry) as (url, _), aiohttp.ClientSession(url) as session:
            await pull(url, "library/demo:latest", part_min=1_000_000)
            await _skopeo_copy(url, tmp_path / "copy")
            catalog = await (await session.get("/v2/_catalog")).json()
            tags = await run("skopeo", "list-tags", "--tls-verify=false", f"docker://{url[7:]}/library/demo")
    assert catalog == {"repositories": ["library/demo", "library/image"]}
    assert '"latest"' in tags.out, tags.err
