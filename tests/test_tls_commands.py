"""``mirror tls``, as it is typed."""

import json
import os
from pathlib import Path

from tests.process import Ended, mirror, run


async def tls(folder: Path, *arguments: str) -> Ended:
    """Run ``mirror tls`` for the store below ``folder``."""
    return await mirror("tls", *arguments, "--store", str(folder / "store"), cwd=folder)


async def test_init_show_trust_and_renew(tmp_path: Path) -> None:
    """The life of a CA."""
    made = json.loads((await tls(tmp_path, "init", "--json")).out)
    shown = json.loads((await tls(tmp_path, "show", "--json")).out)
    assert made == shown
    assert made["certificate"] == str(tmp_path / "store.state" / "tls" / "ca.pem")
    assert "registry.ollama.ai" in made["names"]
    again = await tls(tmp_path, "init")
    assert (again.code, again.out) == (1, "")
    assert made["certificate"] in again.err
    assert "renew" in again.err
    renewed = json.loads((await tls(tmp_path, "renew", "--json")).out)
    assert renewed["fingerprint"] != made["fingerprint"]
    text = (await tls(tmp_path, "show")).out
    assert renewed["fingerprint"] in text
    assert "PRIVATE" not in text


async def test_trust_prints_what_to_run_everywhere(tmp_path: Path) -> None:
    """With the fingerprint as openssl prints it."""
    assert (await tls(tmp_path, "init")).code == 0
    said = await tls(tmp_path, "trust")
    assert said.code == 0
    for command in ("update-ca-certificates", "update-ca-trust", "security add-trusted-cert", "Import-Certificate"):
        assert command in said.out
    assert "SSL_CERT_FILE" in said.out
    assert "cat ollama-mirror-ca.pem >> bundle.pem" in said.out
    pem = str(tmp_path / "store.state" / "tls" / "ca.pem")
    printed = await run("openssl", "x509", "-in", pem, "-noout", "-fingerprint", "-sha256")
    assert printed.out.strip().partition("=")[2] in said.out
    assert "instructions" in json.loads((await tls(tmp_path, "trust", "--json")).out)


async def test_without_a_ca_they_say_how_to_make_one(tmp_path: Path) -> None:
    """Exit code 1: it could not be done."""
    for command in ("show", "trust", "renew"):
        said = await tls(tmp_path, command)
        assert (said.code, said.out) == (1, "")
        assert "mirror tls init" in said.err


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """In one line, and nothing half made stays."""
    (tmp_path / "store.state").write_text("a file")
    said = await tls(tmp_path, "init")
    assert said.code == 1
    assert said.err.startswith("mirror: cannot write ")
    assert os.listdir(tmp_path) == ["store.state"]
