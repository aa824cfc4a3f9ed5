"""Files of the state folder that somebody has tampered with: links, pipes, and files that are gone."""

import asyncio
import os
from pathlib import Path

import pytest
from aiohttp import web

from mirror.access import Keyring, Kind, Passes, Scope, Seal, WrongKeys
from mirror.access.credentials import Credentials
from mirror.errors import BadKey, StoreUnusable
from mirror.listen import Names
from mirror.registry.realms import Realms
from mirror.store import StoreLock, holder
from mirror.web import Gate
from tests.access import Clock, Signer, keys_in, made, proxied
from tests.process import mirror
from tests.support import machine, settings

SECRET = b"root:secret\n"
KEY = (
    '{"keys": [{"id": "%s", "name": "a", "kind": "key", "proof": "%s", "scopes": ["pull"], "user": "a", '
    '"created": "2026-01-01T00:00:00Z"}]}'
)


def _victim(folder: Path) -> Path:
    path = folder / "shadow"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("kind", ["link", "dangling", "name", "pipe", "folder"])
def test_what_is_no_plain_file_is_no_lock(tmp_path: Path, kind: str) -> None:
    """The mirror's user owns the folder, and root's commands lock it: else it could have any file of the machine."""
    victim, state = _victim(tmp_path), tmp_path / "state"
    state.mkdir()
    Keyring(state).add("before", [Scope.PULL])
    (state / "keys.lock").unlink()
    for path in (state / "keys.lock", state / "lock"):
        match kind:
            case "link":
                path.symlink_to(victim)
            case "dangling":
                path.symlink_to(tmp_path / "made")
            case "name":
                os.link(victim, path)
            case "pipe":
                os.mkfifo(path)
            case _:
                path.mkdir()
    if os.geteuid() == 0:
        os.chown(state, 12345, 12345)
    with pytest.raises(StoreUnusable, match=r"keys\.lock: it is a link, or not a plain file"):
        Keyring(state).add("x", [Scope.PULL])
    with pytest.raises(StoreUnusable, match="lock: it is a link, or not a plain file"):
        StoreLock(state / "lock", "mirror gc").take()
    assert holder(state / "lock") is None
    found = victim.stat()
    assert (victim.read_bytes(), found.st_uid, found.st_gid) == (SECRET, os.geteuid(), os.getegid())
    assert not (tmp_path / "made").exists()
    assert [one.name for one in Keyring(state).read()] == ["before"]


def test_root_gives_away_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    """A lock that is there belongs to whom it belongs."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "keys.lock").touch()
    os.chown(tmp_path, 12345, 12345)
    (tmp_path / "keys.json").write_text('{"keys": []}')
    Keyring(tmp_path).add("a", [Scope.PULL])
    assert (tmp_path / "keys.lock").stat().st_uid == 0
    assert (tmp_path / "keys.json").stat().st_uid == 12345


def test_keys_that_are_gone_open_nothing(tmp_path: Path) -> None:
    """At the next start as well: a slip of rm, or a backup without the file, must not open what was closed."""
    ring = Keyring(tmp_path)
    ring.add("laptop", [Scope.PULL])
    (tmp_path / "keys.json").unlink()
    for asked in (ring.read, lambda: keys_in(tmp_path), lambda: ring.add("other", [Scope.API])):
        with pytest.raises(BadKey, match=r"are gone.*restore the file.*remove .*keys\.lock"):
            asked()
    assert not (tmp_path / "keys.json").exists()
    (tmp_path / "keys.lock").unlink()
    assert ring.read() == (), "as the sentence says"


def test_a_file_without_keys_is_not_one_that_is_gone(tmp_path: Path) -> None:
    """Who forgets the last key has opened the mirror by intent; and a crash at the first key closes nothing."""
    ring = Keyring(tmp_path)
    ring.add("laptop", [Scope.PULL])
    ring.forget("laptop")
    assert ring.read() == ()
    assert not keys_in(tmp_path).guards(Scope.PULL)
    other = tmp_path / "other"
    other.mkdir()
    (other / "keys.json").write_text('{"keys": []}')  # a crash before the first key was written leaves this
    Keyring(other).add("a", [Scope.PULL])
    assert len(Keyring(other).read()) == 1


async def test_a_mirror_does_not_start_without_keys_that_there_were(tmp_path: Path) -> None:
    """One sentence and no service, where before there was a mirror open to everybody."""
    state = tmp_path / "store.state"
    state.mkdir()
    Keyring(state).add("laptop", [Scope.PULL])
    (state / "keys.json").unlink()
    ended = await mirror("serve", "--host", "127.0.0.1", "--port", "0", "--store", str(tmp_path / "store"))
    assert ended.code == 1
    assert "keys.json are gone" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("name", ["keys.json", "seal.key"])
def test_a_pipe_is_no_file_to_wait_for(tmp_path: Path, name: str) -> None:
    """It would keep a start, or a command of root, for ever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadKey, match="plain file"):
        Keyring(tmp_path).read() if name == "keys.json" else Seal.opened(tmp_path, 1.0)
    assert Seal.of_commands(tmp_path) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Sparse, it costs who made it nothing, and the mirror all its memory."""
    with (tmp_path / "keys.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadKey, match="larger than"):
        Keyring(tmp_path).read()


async def test_a_pipe_in_place_of_the_keys_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Health least of all, which needs no key: a monitor would have the mirror restarted, and it would not start."""
    made(tmp_path, Scope.API)
    async with proxied(tmp_path) as (_, client):
        path = tmp_path / "state" / "keys.json"
        path.unlink()
        os.mkfifo(path)
        async with asyncio.timeout(10):
            while (await client.get("/api/tags")).status != 503:
                assert (await client.get("/livez")).status == 200
            assert (await client.get("/livez")).status == 200


async def test_what_needs_nothing_waits_for_no_look_at_the_keys(tmp_path: Path) -> None:
    """A disk that hangs must not make the mirror look dead: only what may need a key looks at the file again."""
    clock = Clock()
    keys = keys_in(tmp_path, clock)
    said = settings(tmp_path, "http://127.0.0.1:9")
    credentials = Credentials(keys, WrongKeys(clock), WrongKeys(clock))

    async def answered(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(
        middlewares=[Gate(said, credentials, Realms(Names.of(said)), Passes("0"), clock).middleware()]
    )
    for path in ("/livez", "/mirror/health", "/api/tags"):
        app.router.add_get(path, answered)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with machine(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            clock.at += 2
            for path, due in (("/livez", True), ("/mirror/health", True), ("/api/tags", False)):
                assert (await client.get(path)).status == 200
                assert keys.due is due, path
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", ["local", "", "a.b", "a b", "api_key~12345678", "a" * 65])
def test_ids_that_mean_something_else_are_refused(tmp_path: Path, name: str) -> None:
    """A key called ``local`` could be taken for the commands of this machine, which may do everything."""
    (tmp_path / "keys.json").write_text(KEY % (name, "0" * 64))
    with pytest.raises(BadKey, match="cannot be the id of a key"):
        Keyring(tmp_path).read()


def test_an_empty_public_key_makes_no_secret(tmp_path: Path) -> None:
    """Who sends an Ollama's key by a script that found none wants no other kind of key."""
    ring = Keyring(tmp_path)
    with pytest.raises(BadKey, match="no public ed25519 key"):
        ring.add("laptop", [Scope.PULL], ollama="")
    assert ring.add("laptop", [Scope.PULL], ollama=Signer().line)[0].kind is Kind.OLLAMA


@pytest.mark.parametrize("lasts_s", [0.0, -5.0, 0.5])
def test_a_key_that_never_lives_is_not_made(tmp_path: Path, lasts_s: float) -> None:
    """It would close pulling for good, and open it to nobody."""
    with pytest.raises(BadKey, match="for a second at least"):
        Keyring(tmp_path, Clock().instant).add("a", [Scope.PULL], lasts_s=lasts_s)
    assert not (tmp_path / "keys.json").exists()


async def test_a_key_can_be_made_before_anything_else(tmp_path: Path) -> None:
    """Whoever closes the mirror before its first start must not be told of a missing folder."""
    store = tmp_path / "a" / "b" / "store"
    ended = await mirror("key", "add", "first", "--store", str(store))
    assert ended.code == 0, ended.err
    assert [one.name for one in Keyring(store.with_name("store.state")).read()] == ["first"]
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
        await mirror("key", "add", "first", "--store", str(tmp_path / "c" / "store"))
        assert (tmp_path / "c").stat().st_uid == (tmp_path / "c" / "store.state").stat().st_uid == 12345
