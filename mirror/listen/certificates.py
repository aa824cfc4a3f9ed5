"""What a TLS connection is answered with: a certificate for the name that the client says (RFC 6066 §3)."""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mirror.config import ListenSettings
from mirror.errors import BadCertificate
from mirror.listen.ca import Authority, certificate_file, key_file
from mirror.listen.names import OLLAMAS, Names, is_loopback, plain_host

log = structlog.get_logger(__name__)

_MOST = 256

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    context: ssl.SSLContext
    renew_at: datetime | None


class Certificates:
    """Contexts for TLS, one per name, made when first asked for and looked after: files that changed are read again.

    For the mirror's own names the certificate of ``listen.certificate`` is shown where there is one; for the hosts
    it stands in for one of its CA, as for its own names otherwise.
    """

    def __init__(
        self,
        state: Path,
        names: Names,
        settings: ListenSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state = state
        self._names = names
        self._certificate = settings.certificate
        self._key = settings.key
        self._now = now
        self._authority: Authority | None = None
        self._own: ssl.SSLContext | None = None
        self._seen: Stamp | None = None
        self._held: dict[str, _Held] = {}

    async def refresh(self) -> None:
        """Read the files again where they are others than before; what cannot be read is said in the log, once."""
        stamp = tuple(_stamp(path) for path in self._files())
        if stamp != self._seen:
            authority, own = await asyncio.to_thread(self._read)
            # No await until all of it is there: a handshake may come in between.
            self._authority, self._own, self._seen = authority, own, stamp
            self._held.clear()

    async def authority(self) -> Authority | None:
        """Return the CA as it is on the disk now; None where there is none that can be used."""
        await self.refresh()
        return self._authority

    async def speaks_for(self, host: str, here: str) -> bool:
        """Say whether a certificate can be shown for ``host`` to one who reached us at the address ``here``."""
        await self.refresh()
        return self._for(host, here) is not None

    async def context(self, host: str, here: str) -> ssl.SSLContext | None:
        """Return what to answer a handshake with, ``host`` being the name of one that says none. None: nothing."""
        await self.refresh()
        return self._for(host, here)

    def _files(self) -> tuple[Path, ...]:
        own = (self._certificate, self._key)
        return (certificate_file(self._state), key_file(self._state), *(path for path in own if path is not None))

    def _read(self) -> tuple[Authority | None, ssl.SSLContext | None]:
        authority = own = None
        try:
            authority = Authority.load(self._state)
        except BadCertificate as error:
            log.warning("no CA", problem=str(error))
        if self._certificate is not None:
            try:
                own = self._context(str(self._certificate), str(self._key) if self._key else None)
            except OSError as error:  # SSLError is one
                # A certificate and its key are seldom replaced at the same moment.
                log.warning("certificate", path=str(self._certificate), problem=str(error))
                own = self._own
        return authority, own

    def _for(self, host: str, here: str) -> ssl.SSLContext | None:
        name = plain_host(host)
        # The upstream may be another program of the mirror's own machine.
        is_here = name == plain_host(here) or is_loopback(name)
        mirrored = not is_here and (name in self._names.mirrored or name == OLLAMAS)
        if not mirrored and not self._names.owns(name, here):
            return None
        if self._own is not None and not mirrored:
            return self._own
        if self._authority is None:
            return None
        held = self._held.get(name)
        if held is None or (held.renew_at is not None and held.renew_at < self._now()):
            if not self._authority.covers(name):
                return None
            if len(self._held) >= _MOST:  # the addresses by which we were reached: no machine has so many
                self._held.clear()
            leaf = self._authority.leaf(name, self._now())
            held = self._held[name] = _Held(self._of_memory(leaf.pem), leaf.renew_at)
        return held.context

    def _of_memory(self, pem: bytes) -> ssl.SSLContext:
        """Make a context of a key that is never on a disk: OpenSSL by way of Python reads files only."""
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            return self._context(f"/proc/self/fd/{fd}", None)

    def _context(self, certificate: str, key: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])  # RFC 7301; Go's client would speak HTTP/2 unless told
        context.load_cert_chain(certificate, key)
        context.sni_callback = self._switch
        return context

    def _switch(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Take the context for the name that the client says; one that is not ours is refused (RFC 6066 §3)."""
        if name is None:
            return None
        context = self._for(name, "")
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = context
        return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
