"""Programs of others in front of a mirror that asks for keys."""

from pathlib import Path

from mirror.access import Keyring, Scope
from tests.fakes.docker_registry import skip_without
from tests.fakes.push import make_oci_image
from tests.fakes.registry import running_fake_registry
from tests.process import run
from tests.support import mirrored

pytestmark = skip_without("skopeo")


async def test_skopeo_copies_with_a_key_and_not_without(tmp_path: Path) -> None:
    """It finds the token by the challenge, shows the key as a password, and brings the token along."""
    image = make_oci_image(tmp_path / "image")
    _, secret = Keyring(tmp_path / "state").add("ci", [Scope.PULL])
    async with running_fake_registry() as fake:
        for blob in image.blobs:
            fake.add_blob((tmp_path / "image" / "blobs" / "sha256" / blob.digest.hex).read_bytes())
        fake.add_manifest("library/image:latest", image.raw)
        async with mirrored(tmp_path, fake) as (mirror, _):
            source = f"docker://{mirror.url.removeprefix('http://')}/library/image:latest"
            copy = ("skopeo", "copy", "--src-tls-verify=false")
            refused = await run(*copy, source, f"dir:{tmp_path / 'none'}")
            wrong = await run(*copy, "--src-creds", "any:wrong", source, f"dir:{tmp_path / 'wrong'}")
            copied = await run(*copy, "--src-creds", f"any:{secret}", source, f"dir:{tmp_path / 'copy'}")
    assert copied.code == 0, copied.err
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.raw
    for ended in (refused, wrong):
        assert ended.code != 0
        assert "401" in ended.err or "unauthorized" in ended.err
