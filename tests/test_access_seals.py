"""Tokens and tickets: what is sealed, and what is refused."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access import Keyring, Scope, Seal
from mirror.errors import BadKey
from mirror.values import Digest
from tests.access import Clock, keys_in

BLOB, OTHER = Digest.of(b"a"), Digest.of(b"b")


def test_a_ticket_is_good_for_one_blob_until_it_is_late(tmp_path: Path) -> None:
    """It stands in an address, which others may see: so it must be worth little."""
    clock = Clock()
    keys = keys_in(tmp_path, clock, ticket_ttl=100)
    key, _ = Keyring(tmp_path, clock.instant).add("laptop", [Scope.PULL])
    keys = keys_in(tmp_path, clock, ticket_ttl=100)
    ticket = keys.seal.ticket(BLOB, key.id)
    grant = keys.grant_of_ticket(ticket, BLOB)
    assert grant is not None
    assert (grant.key_id, grant.user, grant.scopes) == (key.id, "laptop", frozenset([Scope.PULL]))
    assert keys.grant_of_ticket(ticket, OTHER) is None
    assert keys.grant(ticket) is None, "it is no token"
    clock.at += 100
    assert keys.grant_of_ticket(ticket, BLOB) is not None
    clock.at += 1
    assert keys.grant_of_ticket(ticket, BLOB) is None


def test_what_was_sealed_ends_with_its_key(tmp_path: Path) -> None:
    """Revoking is at once, also for who holds a token of an hour."""
    key, _ = Keyring(tmp_path).add("laptop", [Scope.PULL, Scope.API])
    before = keys_in(tmp_path)
    token, ticket = before.seal.token(key.id, key.user, key.scopes, 60), before.seal.ticket(BLOB, key.id)
    assert before.grant(token) is not None
    Keyring(tmp_path).revoke("laptop")
    after = keys_in(tmp_path)
    assert after.grant(token) is None
    assert after.grant_of_ticket(ticket, BLOB) is None


def test_what_was_sealed_ends_with_the_seal(tmp_path: Path) -> None:
    """Removing seal.key is how everything is ended at once."""
    key, _ = Keyring(tmp_path).add("laptop", [Scope.PULL])
    before = keys_in(tmp_path)
    token, ticket, local = (
        before.seal.token(key.id, key.user, key.scopes, 60),
        before.seal.ticket(BLOB, key.id),
        before.seal.local_token(),
    )
    (tmp_path / "seal.key").unlink()
    after = keys_in(tmp_path)
    assert [after.grant(token), after.grant(local), after.grant_of_ticket(ticket, BLOB)] == [None, None, None]


def test_a_token_is_worth_no_more_than_its_key(tmp_path: Path) -> None:
    """Neither more scopes than it says nor more than its key has now."""
    clock = Clock()
    key, _ = Keyring(tmp_path, clock.instant).add("laptop", [Scope.PULL])
    keys = keys_in(tmp_path, clock)
    wide = keys.grant(keys.seal.token(key.id, "laptop", [Scope.ADMIN], 60))
    assert wide is not None
    assert wide.scopes == {Scope.PULL}
    late = keys.seal.token(key.id, "laptop", [Scope.PULL], 60)
    clock.at += 61
    assert keys.grant(late) is None


def test_commands_of_this_machine_are_known_for_a_minute(tmp_path: Path) -> None:
    """Who can read seal.key may do what the mirror's user may; nothing else makes such a token."""
    clock = Clock()
    keys = keys_in(tmp_path, clock)
    token = keys.seal.local_token()
    grant = keys.grant(token)
    assert grant is not None
    assert (grant.key_id, grant.scopes) == ("local", frozenset([Scope.ADMIN]))
    assert Seal.of_commands(tmp_path / "none") is None
    clock.at += 61
    assert keys.grant(token) is None


@given(st.integers(0, 400), st.sampled_from("aZ0_-.~\n"))
def test_a_changed_letter_is_refused(at: int, letter: str) -> None:
    """Wherever it is: in the id, in the time, in the seal."""
    seal = Seal(b"k" * 32, 60, Clock())
    for text, opened in (
        (seal.token("abcd", "me", [Scope.PULL], 60), seal.open_token),
        (seal.ticket(BLOB, "abcd"), lambda said: seal.open_ticket(said, BLOB)),
    ):
        place = at % len(text)
        changed = text[:place] + letter + text[place + 1 :]
        found, meant = opened(changed), opened(text)
        assert meant is not None
        assert changed == text or found is None


@given(st.text(max_size=80))
def test_any_text_is_refused_in_silence(text: str) -> None:
    """Whatever a stranger sends is no reason for an exception."""
    seal = Seal(b"k" * 32, 60, Clock())
    assert seal.open_token(text) is None
    assert seal.open_token(f"mt_{text}") is None
    assert seal.open_ticket(text, BLOB) is None


def test_the_key_of_the_seal_is_private_and_stays(tmp_path: Path) -> None:
    """A restart must not end the pulls of the day."""
    first = Seal.opened(tmp_path, 60).ticket(BLOB, "abcd")
    assert Seal.opened(tmp_path, 60).open_ticket(first, BLOB) == "abcd"
    assert stat.S_IMODE((tmp_path / "seal.key").stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["seal.key"]
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(BadKey, match="no key of 32 bytes"):
        Seal.opened(tmp_path, 60)
