"""The file of keys, and what is guarded because of it."""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from mirror.access import Keyring, Kind, Scope, guarded
from mirror.access.key import proof_of
from mirror.errors import BadKey
from tests.access import Clock, Signer, keys_in, security

PULL, PUSH, API, ADMIN = Scope.PULL, Scope.PUSH, Scope.API, Scope.ADMIN


def test_a_key_is_kept_as_a_hash_in_a_private_file(tmp_path: Path) -> None:
    """Who reads the file, or a backup of it, has no key."""
    key, secret = Keyring(tmp_path).add("laptop", [API, PULL])
    assert secret is not None
    assert secret.startswith("mk_")
    assert len(secret) >= 46
    text = (tmp_path / "keys.json").read_text()
    assert secret not in text
    assert proof_of(secret) in text
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert Keyring(tmp_path).read() == (key,)
    assert (key.scopes, key.user, key.kind) == ((PULL, API), "laptop", Kind.KEY)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


async def test_several_processes_add_at_once_and_none_is_lost(tmp_path: Path) -> None:
    """Two people, or a script and a person: each gets a key that works."""
    program = (
        "import sys; from pathlib import Path; from mirror.access import Keyring, Scope\n"
        "for at in range(10): Keyring(Path(sys.argv[1])).add(f'{sys.argv[2]}{at}', [Scope.PULL])"
    )
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path), name) for name in "abc"
    ]
    async with asyncio.timeout(40):
        assert [await one.wait() for one in running] == [0, 0, 0]
    assert {one.name for one in Keyring(tmp_path).read()} == {f"{name}{at}" for name in "abc" for at in range(10)}


def test_a_name_and_an_ollama_are_taken_while_live(tmp_path: Path) -> None:
    """A revoked one may be made anew; two live ones of one name could not be told apart."""
    ring, ollama = Keyring(tmp_path), Signer()
    ring.add("laptop", [PULL], ollama=ollama.line)
    with pytest.raises(BadKey, match="there is a key laptop already"):
        ring.add("laptop", [PULL])
    with pytest.raises(BadKey, match="this is the key laptop already"):
        ring.add("other", [PULL], ollama=ollama.line)
    ring.revoke("laptop")
    again, _ = ring.add("laptop", [PULL, API], ollama=ollama.line)
    assert ring.find("laptop") == again
    keys = keys_in(tmp_path)
    assert keys.of_ollama(again.proof) == again, "the one that was revoked is not taken for it"


@pytest.mark.parametrize("name", ["", " a", "a\n", "a" * 81, "anonymous", "ä", "-a"])
def test_a_name_that_would_confuse_is_refused(tmp_path: Path, name: str) -> None:
    """Names are shown in tables, logs and rules; anonymous is somebody else."""
    with pytest.raises(BadKey, match="cannot be the name"):
        Keyring(tmp_path).add(name, [PULL])
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize(
    "line",
    ["", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 " + "A" * 68, "a b"],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, line: str) -> None:
    """Above all the private one, which must not end up in our file."""
    with pytest.raises(BadKey, match="no public ed25519 key"):
        Keyring(tmp_path).add("laptop", [PULL], ollama=line or "-")


def test_keys_end_and_stay_listed(tmp_path: Path) -> None:
    """Revoked or expired, a key opens nothing, and goes on guarding what it guarded."""
    clock = Clock()
    ring = Keyring(tmp_path, clock.instant)
    _, short = ring.add("short", [PULL], lasts_s=60)
    _, gone = ring.add("gone", [API])
    assert short is not None
    assert gone is not None
    ring.revoke("gone")
    keys = keys_in(tmp_path, clock)
    assert keys.grant(short) is not None
    assert keys.grant(gone) is None
    clock.at += 60
    assert keys.grant(short) is None
    assert (keys.guards(PULL), keys.guards(API), keys.guards(PUSH)) == (True, True, False)
    assert [one.name for one in ring.read()] == ["short", "gone"]
    first = ring.find("gone").revoked
    clock.at += 60
    assert ring.revoke("gone").revoked == first, "revoked twice, it ended the first time"


@pytest.mark.parametrize(
    ("scopes", "said", "closed"),
    [
        ([], {}, set()),
        ([ADMIN], {}, {ADMIN, PUSH}),
        ([PULL], {}, {PULL}),
        ([API], {}, {API}),
        ([PUSH], {}, {PUSH}),
        ([], {"api_key": "k"}, {API, PUSH, ADMIN}),
        ([], {"anonymous": "none"}, set(Scope)),
        ([], {"anonymous": "pull"}, {API}),
        ([PULL, API], {"anonymous": "pull,api"}, set()),
        ([ADMIN], {"anonymous": "api"}, {PULL, PUSH, ADMIN}),
    ],
)
def test_what_needs_a_key(tmp_path: Path, scopes: list[Scope], said: dict[str, str], closed: set[Scope]) -> None:
    """A key closes what it lists; the settings say otherwise where somebody wrote them."""
    ring = Keyring(tmp_path)
    entries = [ring.add("one", scopes)[0]] if scopes else []
    assert guarded(entries, security(**said)) == closed


def test_the_key_of_the_settings_is_good_for_everything(tmp_path: Path) -> None:
    """So it was with the first seed; another one in its place ends what was got with it."""
    keys = keys_in(tmp_path, api_key="hush")
    grant = keys.grant("hush")
    assert grant is not None
    assert (grant.user, grant.scopes) == ("api_key", frozenset(Scope))
    assert keys.is_guessable(grant)
    token = keys.seal.token(grant.key_id, grant.user, [PULL], 60)
    assert keys_in(tmp_path, api_key="hush").grant(token) is not None
    assert keys_in(tmp_path, api_key="other").grant(token) is None
    assert "hush" not in grant.key_id


async def test_a_change_of_the_file_is_seen_a_second_later(tmp_path: Path) -> None:
    """Revoking ends a key without a restart, and looking costs a request next to nothing."""
    clock = Clock()
    keys, ring = keys_in(tmp_path, clock), Keyring(tmp_path, clock.instant)
    _, secret = ring.add("laptop", [PULL])
    assert secret is not None
    assert not keys.due
    clock.at += 1
    assert keys.due
    await keys.refresh()
    assert keys.grant(secret) is not None
    assert not keys.due
    ring.revoke("laptop")
    clock.at += 1
    await keys.refresh()
    assert keys.grant(secret) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys": [{}]}',
        b'{"keys": [], "more": 1}',
        b'{"keys": ' + b"[" * 100_000,
        json.dumps({"keys": [{"id": "a", "name": "a", "kind": "key", "proof": "x", "scopes": ["pull"], "user": "a",
                              "created": "2026-01-01T00:00:00Z"}]}).encode(),
        json.dumps({"keys": [{"id": "a", "name": "a", "kind": "key", "proof": "0" * 64, "scopes": ["root"],
                              "user": "a", "created": "2026-01-01T00:00:00Z"}]}).encode(),
        json.dumps({"keys": [{"id": "a", "name": "a", "kind": "key", "proof": "0" * 64, "scopes": ["pull"],
                              "user": "a", "created": "2026-01-01T00:00:00Z", "expire": "x"}]}).encode(),
    ],
)  # fmt: skip
async def test_a_broken_file_closes_everything(tmp_path: Path, content: bytes) -> None:
    """At the start and later: to go on without keys would open what they closed."""
    clock = Clock()
    ring = Keyring(tmp_path, clock.instant)
    _, secret = ring.add("laptop", [API])
    assert secret is not None
    good = (tmp_path / "keys.json").read_bytes()
    keys = keys_in(tmp_path, clock)
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(BadKey, match=r"keys\.json"):
        keys_in(tmp_path, clock)
    with pytest.raises(BadKey, match=r"keys\.json"):
        ring.add("other", [PULL])
    assert (tmp_path / "keys.json").read_bytes() == content, "what may be mended is not written over"
    await keys.refresh()
    assert keys.broken is not None
    assert keys.grant(secret) is None
    assert all(keys.guards(scope) for scope in Scope)
    (tmp_path / "keys.json").write_bytes(good)
    await keys.refresh()
    assert keys.broken is None
    assert keys.grant(secret) is not None
    assert not keys.guards(PULL)


async def test_a_file_that_goes_away_closes_everything(tmp_path: Path) -> None:
    """A folder that is not mounted, or a slip of rm, must not open the mirror."""
    keys, ring = keys_in(tmp_path), Keyring(tmp_path)
    await keys.refresh()
    assert keys.broken is None, "none was ever made"
    ring.add("laptop", [API])
    await keys.refresh()
    (tmp_path / "keys.json").unlink()
    await keys.refresh()
    assert keys.broken is not None
    assert keys.guards(PULL)


async def test_a_broken_file_leaves_open_what_the_settings_open(tmp_path: Path) -> None:
    """``anonymous: pull`` needs no key whatever the file says; and the key of the settings is not in the file."""
    keys = keys_in(tmp_path, anonymous="pull", api_key="hush")
    (tmp_path / "keys.json").write_bytes(b"?")
    await keys.refresh()
    assert [scope for scope in Scope if not keys.guards(scope)] == [PULL]
    assert keys.grant("hush") is not None


def test_forgetting_opens_again(tmp_path: Path) -> None:
    """Only what no other key lists."""
    ring = Keyring(tmp_path)
    ring.add("a", [PULL, API])
    other, _ = ring.add("b", [API])
    ring.forget("a")
    assert ring.read() == (other,)
    assert guarded(ring.read(), security()) == {API}
    with pytest.raises(BadKey, match="there is no key a"):
        ring.forget("a")


def test_what_a_crash_left_half_written_is_taken_away(tmp_path: Path) -> None:
    """A process that was killed while it wrote leaves no second list of keys behind, and stops nobody."""
    ring = Keyring(tmp_path)
    ring.add("a", [PULL])
    (tmp_path / "keys.json.new").write_bytes(b'{"keys"')
    ring.add("b", [PULL])
    assert [one.name for one in ring.read()] == ["a", "b"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


def test_a_file_of_root_belongs_to_the_mirrors_user(tmp_path: Path) -> None:
    """A key that an administrator adds must be readable to a mirror that runs as another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, 12345)
    Keyring(state).add("laptop", [PULL])
    assert {(one.stat().st_uid, one.stat().st_gid) for one in state.iterdir()} == {(12345, 12345)}
