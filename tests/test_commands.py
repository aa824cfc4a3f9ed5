"""The commands, as a user runs them."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.demo.model import DemoModel, write_model
from mirror.demo.registry import RunningRegistry, running_registry
from tests.process import mirror, serving


@asynccontextmanager
async def _above(folder: Path) -> AsyncIterator[tuple[DemoModel, RunningRegistry, dict[str, str]]]:
    model = await asyncio.to_thread(write_model, folder / "registry", size=3_000_000)
    async with running_registry(folder / "registry") as registry:
        yield model, registry, {"OLLAMA_MIRROR_UPSTREAM_URL": registry.url, "OLLAMA_MIRROR_RETRY_DELAY": "10ms"}


async def test_a_command_fills_and_looks_after_a_store_nobody_holds(tmp_path: Path) -> None:
    """Without a running mirror the commands do the work themselves."""
    store = str(tmp_path / "store")
    async with _above(tmp_path) as (model, registry, env):
        fetched = await mirror("prefetch", "demo", "--store", store, env=env)
        assert (fetched.code, fetched.err) == (0, "")
        assert "3.0 MB fetched now" in fetched.out
        before = registry.counters.blob_bytes
        again = await mirror("prefetch", "demo", "--store", store, "--json", env=env)
        assert json.loads(again.out.splitlines()[-1]) == {
            "status": "success",
            "name": "demo:latest",
            "completed": model.size,
            "total": model.size,
            "fetched": 0,
        }
        assert registry.counters.blob_bytes == before
    listed = json.loads((await mirror("list", "--store", store, "--json")).out)
    assert [(one["name"], one["size"], one["complete"]) for one in listed] == [("demo:latest", model.size, True)]
    shown = await mirror("show", "demo", "--store", store)
    assert "parameter size" in shown.out
    assert model.blobs[0].digest.short in shown.out
    assert (await mirror("verify", "--store", store)).code == 0
    removed = await mirror("rm", "demo", "--store", store)
    assert removed.out == "demo:latest removed, 3.0 MB freed\n"
    assert list((tmp_path / "store" / "blobs").iterdir()) == []
    assert (await mirror("rm", "demo", "--store", store)).code == 1


async def test_commands_go_to_the_mirror_that_holds_the_store(tmp_path: Path) -> None:
    """A running mirror and a command never write to one store at once: the mirror does the work."""
    async with _above(tmp_path) as (_, registry, env), serving(tmp_path / "store", registry.url) as (url, _):
        by_store = await mirror("prefetch", "demo", "--store", str(tmp_path / "store"), env=env)
        assert by_store.code == 0, by_store.err
        by_server = await mirror("list", "--server", url, cwd=tmp_path)
        assert "demo:latest" in by_server.out
        by_environment = await mirror("show", "demo", env={"OLLAMA_MIRROR_SERVER": url}, cwd=tmp_path)
        assert "complete" in by_environment.out
        assert (await mirror("verify", "--server", url, cwd=tmp_path)).code == 0
        gone = await mirror("rm", "demo", "--server", url, "--json", cwd=tmp_path)
        assert json.loads(gone.out)["name"] == "demo:latest"


async def test_verify_finds_a_flipped_byte(tmp_path: Path) -> None:
    """What a disk does to a blob behind our back is found, said, and ends the command with 1."""
    store = tmp_path / "store"
    async with _above(tmp_path) as (model, _, env):
        await mirror("prefetch", "demo", "--store", str(store), env=env)
    blob = store / "blobs" / model.blobs[0].digest.filename
    with blob.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x00flipped")
    found = await mirror("verify", "--store", str(store), "--json")
    assert found.code == 1
    steps = [json.loads(line) for line in found.out.splitlines()]
    assert steps[0]["path"] == str(blob)
    assert "wrong bytes" in steps[0]["problem"]
    assert steps[-1] == {"problems": 1}


async def test_an_unknown_model_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A typing error in a name costs a line, not a trace in the store."""
    async with _above(tmp_path) as (_, _, env):
        failed = await mirror("prefetch", "nosuch", "demo", "--store", str(tmp_path / "store"), env=env)
    assert failed.code == 1
    assert "nosuch" in failed.err
    assert "not found" in failed.err
    assert "demo:latest" in failed.out
    names = {path.parent.name for path in (tmp_path / "store" / "manifests").rglob("*") if path.is_file()}
    assert names == {"demo"}


async def test_a_second_server_on_one_store_is_refused_with_one_line(tmp_path: Path) -> None:
    """Two writers would break what a name in the tree means."""
    async with serving(tmp_path / "store", "http://127.0.0.1:9") as (_, first):
        second = await mirror("serve", "--port", "0", "--store", str(tmp_path / "store"), cwd=tmp_path)
    assert second.code == 2
    assert second.err == f"mirror: the store is in use by mirror serve (process {first.pid})\n"


async def test_a_server_whose_lock_was_taken_behind_its_back_stops(tmp_path: Path) -> None:
    """Somebody removed the lock file and started another: one of the two must go, and it is the one that can know."""
    store = tmp_path / "store"
    async with serving(store, "http://127.0.0.1:9") as (_, first):
        first.send_signal(signal.SIGSTOP)  # else it makes the file anew within a second
        (tmp_path / "store.state" / "lock").unlink()
        async with serving(store, "http://127.0.0.1:9"), asyncio.timeout(20):
            first.send_signal(signal.SIGCONT)
            assert await first.wait() == 2


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["list", "--store", "nowhere"], {}, "there is no store at"),
        (["serve", "--store", "missing/deep/store"], {}, "cannot make"),
        (["serve", "--config", "nosuch.yaml"], {}, "nosuch.yaml"),
        (["serve"], {"OLLAMA_MIRROR_CACHE_MAX_SISE": "1"}, "OLLAMA_MIRROR_CACHE_MAX_SISE"),
        (["serve"], {"OLLAMA_MIRROR_UPSTREAM_URL": "ftp://x"}, "upstream.url"),
        (["prefetch", "a/b/c/d/e"], {}, "invalid model name"),
        (["show", "demo", "--server", "http://127.0.0.1:9"], {}, "does not answer"),
    ],
)
async def test_wrong_use_is_one_line_and_changes_nothing(
    tmp_path: Path, arguments: list[str], env: dict[str, str], said: str
) -> None:
    """A person reads one sentence that names what is wrong; no folder appears."""
    failed = await mirror(*arguments, env=env, cwd=tmp_path)
    assert failed.code == (1 if "--server" in arguments else 2)
    assert said in failed.err
    assert failed.err.count("\n") == 1
    assert failed.err.startswith("mirror: ")
    assert list(tmp_path.iterdir()) == []


async def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    """The commonest mistake of all, an Ollama on the same port, is said plainly."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = await mirror("serve", "--host", "127.0.0.1", "--port", str(port), "--store", str(tmp_path / "s"))
    assert failed.code == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in failed.err.splitlines()[-1]


async def test_sigterm_ends_in_order_and_a_second_one_at_once(tmp_path: Path) -> None:
    """An idle mirror ends with 0 on the first signal, and gives the store up."""
    async with serving(tmp_path / "store", "http://127.0.0.1:9") as (_, process):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    assert (await mirror("list", "--store", str(tmp_path / "store"))).code == 0


async def test_config_show_says_where_each_value_comes_from(tmp_path: Path) -> None:
    """Whoever wonders why a setting is what it is reads it here."""
    (tmp_path / "config.yaml").write_text("server:\n  port: 1234\nsecurity:\n  api_key: hush\n")
    shown = await mirror("config", "show", "--origin", "--json", env={"OLLAMA_MIRROR_LOG_LEVEL": "debug"}, cwd=tmp_path)
    rows = json.loads(shown.out)
    assert rows["server.port"] == {"value": "1234", "origin": "config.yaml"}
    assert rows["logging.level"]["origin"] == "environment OLLAMA_MIRROR_LOG_LEVEL"
    assert "hush" not in shown.out
    assert (await mirror("config", "check", cwd=tmp_path)).code == 0
    assert json.loads((await mirror("config", "schema", cwd=tmp_path)).out)["type"] == "object"
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert (await mirror("config", "reference", cwd=tmp_path)).out == page.read_text(), "mirror config reference"


@pytest.mark.parametrize(
    "command",
    ["serve", "prefetch", "list", "show", "rm", "verify", "demo", "config show", "completion", "top", "api schema"],
)
async def test_every_command_explains_itself_with_an_example(command: str) -> None:
    """Help is where people look first."""
    said = (await mirror(*command.split(), "--help")).out
    assert "Example" in said
    assert f"mirror {command}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_shells_can_complete_commands(shell: str) -> None:
    """What completes is made by the program itself, so it knows every command."""
    assert "_MIRROR_COMPLETE" in (await mirror("completion", shell)).out
    offered = await mirror(env={"_MIRROR_COMPLETE": "fish_complete", "COMP_WORDS": "mirror pre", "COMP_CWORD": "pre"})
    assert "prefetch" in offered.out


async def test_the_demo_ends_well_and_fetches_nothing_twice() -> None:
    """The newcomer's first minute is kept true."""
    shown = await mirror("demo", "--size", "20MB", "--json")
    assert shown.code == 0, shown.err
    first, second = json.loads(shown.out)
    assert second["upstream_bytes"] == 0
    assert first["bytes"] == second["bytes"] <= first["upstream_bytes"]


async def test_log_lines_go_to_a_file_that_rotates(tmp_path: Path) -> None:
    """One JSON line per request, and no file grows past its limit."""
    env = {
        "OLLAMA_MIRROR_LOG_FILE": str(tmp_path / "mirror.log"),
        "OLLAMA_MIRROR_LOGGING_MAX_FILE_SIZE": "2kB",
        "OLLAMA_MIRROR_LOGGING_BACKUP_COUNT": "2",
    }
    async with serving(tmp_path / "store", "http://127.0.0.1:9", env=env) as (url, _):
        for _ in range(5):
            for _ in range(10):
                status = await asyncio.to_thread(_status, f"{url}/livez")
                assert status == 200
    files = sorted(path.name for path in tmp_path.glob("mirror.log*"))
    assert files == ["mirror.log", "mirror.log.1", "mirror.log.2"]
    assert all(os.path.getsize(tmp_path / name) <= 2000 for name in files)
    line = json.loads((tmp_path / "mirror.log.1").read_text().splitlines()[0])
    assert (line["event"], line["path"], line["status"]) == ("request", "/livez", 200)


def _status(url: str) -> int:
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.status)
