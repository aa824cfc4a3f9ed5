"""The CA's files: there or not, how long good, for which names, and who reads its key."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mirror.app.doctor.finding import Finding, Verdict
from mirror.errors import BadCertificate
from mirror.listen import Authority, Names
from mirror.listen.ca import key_file

_SOON = timedelta(days=60)
_RENEW = "mirror tls renew; machines that trust the CA then need the new certificate (mirror tls trust)"


def ca(state: Path, names: Names, now: datetime | None = None) -> Iterator[Finding]:
    """Look at the CA, where there is one; that there is none is only said. Blocks."""
    try:
        authority = Authority.load(state)
    except BadCertificate as error:
        yield Finding("ca", Verdict.PROBLEM, str(error), "put its files back from a copy, or make another CA")
        return
    if authority is None:
        yield Finding("ca", Verdict.OK, "none; the ways proxy and dns need one, which mirror tls init makes")
        return
    wrong = [*_key(key_file(state)), *_time(authority, now or datetime.now(UTC)), *_names(authority, names)]
    end = f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}"
    yield from wrong or [Finding("ca", Verdict.OK, f"{authority.fingerprint[:16]}.. is good until {end}")]


def _key(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        said = f"{path} can be read or written by others (mode {mode:04o}): who has it can speak for the registry"
        yield Finding("ca", Verdict.PROBLEM, said, f"chmod 600 {path}; make a new CA if others were on this machine")


def _time(authority: Authority, now: datetime) -> Iterator[Finding]:
    end = authority.certificate.not_valid_after_utc
    if end <= now:
        yield Finding("ca", Verdict.PROBLEM, f"the CA ended on {end:%Y-%m-%d}", _RENEW)
    elif end - now < _SOON:
        yield Finding("ca", Verdict.WARNING, f"the CA ends on {end:%Y-%m-%d}, in {(end - now).days} days", _RENEW)


def _names(authority: Authority, names: Names) -> Iterator[Finding]:
    missing = sorted(one for one in names.mirrored if not authority.covers(one))
    if missing:
        yield Finding("ca", Verdict.WARNING, f"the CA may not speak for {', '.join(missing)}", _RENEW)
