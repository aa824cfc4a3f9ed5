"""The file of keys, ``<state>/keys.json``: read whole, changed by one process at a time, never half written."""

import os
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from mirror.access import files
from mirror.access.key import Key, Kind, checked_name, new_secret, ollama_proof, proof_of
from mirror.access.scopes import Scope
from mirror.access.seals import LOCAL
from mirror.errors import BadKey, StoreUnusable

_LARGEST = 8 << 20
_LOST = (
    "the keys in {path} are gone, and what they closed must not be open for that: restore the file from a backup; or, "
    "if everybody may do what needed a key, remove {lock} as well, and make keys anew"
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PROOF = {Kind.KEY: re.compile(r"[0-9a-f]{64}", re.ASCII), Kind.OLLAMA: re.compile(r"[A-Za-z0-9+/]{68}", re.ASCII)}


def _now() -> datetime:
    return datetime.now(UTC)


@with_config(ConfigDict(extra="forbid", hide_input_in_errors=True))
@dataclass(frozen=True, slots=True)
class _File:
    keys: tuple[Key, ...]


_FILE = TypeAdapter(_File)
_NONE = b'{"keys": []}\n'


class Keyring:
    """The keys as they are on the disk. Changes block, and may come from several processes and threads at once."""

    def __init__(self, state: Path, now: Callable[[], datetime] = _now) -> None:
        self.path = state / "keys.json"
        self._lock = state / "keys.lock"
        self._now = now

    def read(self) -> tuple[Key, ...]:
        """Return every key, in the order they were made; none where none was ever made.

        Raises BadKey where the file cannot be read, is not what ``add`` writes, or is gone: to take it for empty would
        open what a key was made to close.
        """
        try:
            raw = files.content(self.path, _LARGEST)
        except FileNotFoundError:
            if os.path.lexists(self._lock):  # it is made after the file, which stays, though it be empty
                raise BadKey(_LOST.format(path=self.path, lock=self._lock)) from None
            return ()
        except OSError as error:
            raise BadKey(f"cannot read the keys in {self.path}: {error.strerror}") from error
        try:
            keys = _FILE.validate_json(raw).keys
            _check(keys)
        except (ValueError, RecursionError, BadKey) as error:
            said = error.errors()[0] if isinstance(error, ValidationError) else None
            problem = f"{'.'.join(map(str, said['loc']))}: {said['msg']}" if said else str(error)
            raise BadKey(f"cannot use the keys in {self.path}: {problem}; mend the file, or restore it") from error
        return keys

    def add(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        user: str | None = None,
        lasts_s: float | None = None,
        ollama: str | None = None,
    ) -> tuple[Key, str | None]:
        """Make a key and return it with its secret, which is written down nowhere.

        ``ollama`` is a line of an ``id_ed25519.pub``: then there is no secret. ``user`` is ``name`` unless given.
        Raises BadKey where name or key are those of a live one, and StoreUnusable.
        """
        secret = None if ollama is not None else new_secret()
        now = self._now()
        try:
            expires = None if lasts_s is None else datetime.fromtimestamp(now.timestamp() + lasts_s, UTC)
        except (OverflowError, ValueError) as error:
            raise BadKey("a key cannot last so long; leave the time out for one without an end") from error
        if lasts_s is not None and lasts_s < 1.0:
            raise BadKey("a key has to last for a second at least; leave the time out for one without an end")
        wanted = set(scopes)
        key = Key(
            id=secrets.token_hex(4),
            name=checked_name(name, "name of a key"),
            kind=Kind.KEY if ollama is None else Kind.OLLAMA,
            proof=proof_of(secret or "") if ollama is None else ollama_proof(ollama),
            scopes=tuple(one for one in Scope if one in wanted),
            user=checked_name(user or name, "user of a key"),
            created=now,
            expires=expires,
        )
        if not key.scopes:
            raise BadKey(f"a key needs a scope: {', '.join(Scope)}")

        def change(keys: tuple[Key, ...]) -> tuple[Key, ...]:
            for one in keys:
                if one.live(now) and one.name == key.name:
                    raise BadKey(f"there is a key {key.name} already; revoke it, or take another name")
                if one.live(now) and one.proof == key.proof:
                    raise BadKey(f"this is the key {one.name} already; revoke that one first")
            taken = {one.id for one in keys}
            return (*keys, key if key.id not in taken else replace(key, id=secrets.token_hex(16)))

        return self._change(change)[-1], secret

    def revoke(self, name: str) -> Key:
        """End a key, by its name or id. It stays listed, and what it closed stays closed. Raises BadKey."""
        found = self._found(self.read(), name)

        def change(keys: tuple[Key, ...]) -> tuple[Key, ...]:
            self._found(keys, found.id)
            return tuple(
                replace(one, revoked=self._now()) if one.id == found.id and one.revoked is None else one for one in keys
            )

        return self._found(self._change(change), found.id)

    def forget(self, name: str) -> Key:
        """Take a key out of the file, by its name or id: what it alone closed is open then. Raises BadKey."""
        found = self._found(self.read(), name)
        self._change(lambda keys: tuple(one for one in keys if one.id != found.id))
        return found

    def find(self, name: str) -> Key:
        """Return the key with this id, or the live one of this name, else the last one of it. Raises BadKey."""
        return self._found(self.read(), name)

    def _found(self, keys: tuple[Key, ...], name: str) -> Key:
        now = self._now()
        named = [one for one in keys if one.name == name]
        live = [one for one in named if one.live(now)]
        found = [one for one in keys if one.id == name] or live or named
        if not found:
            raise BadKey(f"there is no key {name[:80]}; mirror key list shows those there are")
        return found[-1]

    def _change(self, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> tuple[Key, ...]:
        try:
            files.make_folder(self.path.parent)
            if not os.path.lexists(self._lock):
                files.make_once(self.path, _NONE)  # first, so that a lock without it says that it was lost
            with files.locked(self._lock):
                keys = change(self.read())
                _check(keys)
                files.replace(self.path, _FILE.dump_json(_File(keys), indent=1) + b"\n")
        except OSError as error:
            raise StoreUnusable(f"cannot write {self.path}: {error.strerror}") from error
        return keys


def _check(keys: tuple[Key, ...]) -> None:
    """Raise ValueError for what the types let through."""
    if len({one.id for one in keys}) < len(keys):
        raise ValueError("two keys have one id")
    for one in keys:
        if not _ID.fullmatch(one.id) or one.id == LOCAL:
            raise ValueError(f"{one.id[:80]!r} cannot be the id of a key")
        if not _PROOF[one.kind].fullmatch(one.proof) or not one.scopes:
            raise ValueError(f"the key {one.id} has a proof or scopes that no key has")
        if one.kind is Kind.OLLAMA:
            ollama_proof(one.proof)
