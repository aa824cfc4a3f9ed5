"""install.sh and uninstall.sh, into a folder of the test's own: what they put where, twice, and what stays."""

import shutil
from pathlib import Path

import pytest

from tests.process import Ended, run

SCRIPTS = Path(__file__).parents[1] / "contrib"
SYSTEM = "etc/systemd/system"


def files(root: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    return {str(one.relative_to(root)): one.read_text() for one in root.rglob("*") if one.is_file()}


async def script(name: str, root: Path, *words: str) -> Ended:
    """Run one of them."""
    return await run("sh", str(SCRIPTS / name), *words, env={"DESTDIR": str(root)})


async def test_the_mirror_is_put_in_place_and_again(tmp_path: Path) -> None:
    """The second time nothing is written, and settings that people changed are theirs."""
    first = await script("install.sh", tmp_path, "--no-programs", "--move-ollama", "--prefix", "/usr/local/mirror")
    assert (first.code, first.err) == (0, "")
    found = files(tmp_path)
    assert set(found) == {
        "etc/mirror/config.yaml",
        f"{SYSTEM}/mirror.service",
        f"{SYSTEM}/ollama.service.d/behind-mirror.conf",
    }
    assert "ExecStart=/usr/local/mirror/bin/mirror serve" in found[f"{SYSTEM}/mirror.service"]
    assert "/opt/mirror" not in found[f"{SYSTEM}/mirror.service"]
    (tmp_path / "etc/mirror/config.yaml").write_text("offline: true\n")
    again = await script("install.sh", tmp_path, "--no-programs", "--move-ollama", "--prefix", "/usr/local/mirror")
    assert "writing" not in again.out
    assert files(tmp_path) == {**found, "etc/mirror/config.yaml": "offline: true\n"}


async def test_a_node_is_put_in_place(tmp_path: Path) -> None:
    """What it is told of its hub is for root alone; run again without words it keeps that."""
    refused = await script("install.sh", tmp_path, "node", "--no-programs")
    assert (refused.code, "--hub" in refused.err, files(tmp_path)) == (2, True, {})
    words = ("node", "--no-programs", "--hub", "http://hub:11434", "--required", "llama3.2,qwen3:8b")
    assert (await script("install.sh", tmp_path, *words)).code == 0
    node = tmp_path / "etc/mirror/node"
    assert node.read_text() == "SERVER_URL=http://hub:11434\nREQUIRED_MODELS=llama3.2,qwen3:8b\n"
    assert node.stat().st_mode & 0o777 == 0o600
    assert (await script("install.sh", tmp_path, "node", "--no-programs")).code == 0
    assert "hub:11434" in node.read_text()


async def test_a_dry_run_does_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    """Of both, also for who is not root."""
    said = await script("install.sh", tmp_path, "--dry-run", "--no-start")
    assert said.code == 0
    assert {"would write", "pip install"} <= {word for word in ("would write", "pip install") if word in said.out}
    assert files(tmp_path) == {}
    await script("install.sh", tmp_path, "--no-programs")
    before = files(tmp_path)
    said = await script("uninstall.sh", tmp_path, "--dry-run", "--purge")
    assert f"would run: rm -rf -- {tmp_path}/etc/mirror" in said.out
    assert files(tmp_path) == before


async def test_what_was_installed_goes_and_what_people_have_stays(tmp_path: Path) -> None:
    """Unless they say otherwise; what is no mirror's folder stays in any case."""
    await script("install.sh", tmp_path, "--no-programs", "--move-ollama")
    model, program = tmp_path / "var/lib/mirror/store/blobs/sha256-x", tmp_path / "opt/mirror/bin/mirror"
    for path in (model, program):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    assert (await script("uninstall.sh", tmp_path)).code == 0
    assert set(files(tmp_path)) == {"etc/mirror/config.yaml", "var/lib/mirror/store/blobs/sha256-x"}
    other = tmp_path / "opt/other/thing"
    other.parent.mkdir()
    other.write_text("x")
    assert (await script("uninstall.sh", tmp_path, "--purge", "--prefix", "/opt/other")).code == 0
    assert set(files(tmp_path)) == {"opt/other/thing"}
    assert (await script("uninstall.sh", tmp_path, "--purge", "--prefix", "/")).code == 2


@pytest.mark.parametrize(
    "words", [["--what"], ["--prefix"], ["--prefix", "x"], ["node", "--hub", "http://h; rm -rf x"], ["--hub", "$(id)"]]
)
async def test_words_that_are_wrong_change_nothing(words: list[str], tmp_path: Path) -> None:
    """One line says which."""
    found = await script("install.sh", tmp_path, "--no-programs", *words)
    assert (found.code, found.err.count("\n"), files(tmp_path)) == (2, 1, {})


@pytest.mark.skipif(shutil.which("dash") is None, reason="dash is not installed")
@pytest.mark.parametrize("name", ["install.sh", "uninstall.sh"])
async def test_the_scripts_are_plain_sh(name: str) -> None:
    """Debian's."""
    assert (await run("dash", "-n", str(SCRIPTS / name))).code == 0
    assert (await run("dash", str(SCRIPTS / name), "--help")).code == 0
