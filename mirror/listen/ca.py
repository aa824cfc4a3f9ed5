"""The mirror's own CA: ECDSA P-256, bound by name constraints to the hosts it stands in for (RFC 5280 §4.2.1.10)."""

import ipaddress
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.errors import BadCertificate
from mirror.listen.names import OLLAMAS, Names, own_addresses, plain_host

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
"""Short, for a leaf is made anew without anybody's doing; systems refuse more than 825 days (macOS)."""
_SKEW = timedelta(days=1)
_NAME = "ollama mirror"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for one name with its key, chain included, as one PEM; ``renew_at`` is well before its end."""

    pem: bytes
    renew_at: datetime


def certificate_file(state: Path) -> Path:
    """Where the CA's certificate is, below the state folder."""
    return state / "tls" / "ca.pem"


def key_file(state: Path) -> Path:
    """Where the CA's key is, below the state folder."""
    return state / "tls" / "ca.key"


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA: its certificate and its key."""

    certificate: "x509.Certificate"
    key: "EllipticCurvePrivateKey"

    @classmethod
    def load(cls, state: Path) -> "Authority | None":
        """Read the CA from its files; None where there is none. Blocks. Raises BadCertificate."""
        from cryptography import x509

        path = certificate_file(state)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadCertificate(f"cannot read {path}: {error.strerror}") from error
        try:
            certificate = x509.load_pem_x509_certificate(content)
        except ValueError as error:
            raise BadCertificate(f"{path} is no certificate: {error}") from error
        key = _loaded_key(key_file(state))
        if certificate.public_key() != key.public_key():
            raise BadCertificate(f"{path} and {key_file(state)} do not belong together")
        return cls(certificate, key)

    @classmethod
    def make(cls, state: Path, names: Names, now: datetime | None = None) -> "Authority":
        """Make a CA and its files; never over what is there. Blocks. Raises BadCertificate."""
        from cryptography.hazmat.primitives.asymmetric import ec

        for path in (certificate_file(state), key_file(state)):
            if path.exists():
                raise BadCertificate(f"{path} is there already and stays; mirror tls renew makes a new certificate")
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            certificate_file(state).parent.mkdir(exist_ok=True)
            # The key first: a certificate without its key could not even be made anew.
            _write(key_file(state), _key_pem(key), 0o600, replace=False)
        except OSError as error:
            raise BadCertificate(f"cannot write {error.filename or key_file(state)}: {error.strerror}") from error
        return cls._written(state, key, names, now)

    @classmethod
    def renew(cls, state: Path, names: Names, now: datetime | None = None) -> "Authority":
        """Make a new certificate for the key that is there, with the names of today. Blocks. Raises BadCertificate."""
        return cls._written(state, _loaded_key(key_file(state)), names, now)

    @classmethod
    def _written(cls, state: Path, key: "EllipticCurvePrivateKey", names: Names, now: datetime | None) -> "Authority":
        made = cls(_ca_certificate(key, permitted(names), now or datetime.now(UTC)), key)
        try:
            _write(certificate_file(state), made.pem, 0o644, replace=True)
        except OSError as error:
            raise BadCertificate(f"cannot write {certificate_file(state)}: {error.strerror}") from error
        return made

    @property
    def pem(self) -> bytes:
        """The certificate, as it is given away."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate in hexadecimal, by which people compare it."""
        from cryptography.hazmat.primitives import hashes

        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def names(self) -> list[str]:
        """What the CA may speak for: host names, and addresses as text."""
        from cryptography import x509

        constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        return [str(one.value).removesuffix("/32").removesuffix("/128") for one in constraints.permitted_subtrees or ()]

    def covers(self, name: str) -> bool:
        """Say whether a certificate for ``name`` would be believed: a CA knows the names of the day it was made."""
        return any(name == one or name.endswith(f".{one}") for one in self.names)

    def leaf(self, name: str, now: datetime | None = None) -> Leaf:
        """Make a certificate for one host name or address."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509.oid import ExtendedKeyUsageOID

        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        end = min(now + LEAF_LIFE, self.certificate.not_valid_after_utc)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            _begun(_NAME, self.certificate.subject, key, now, end)
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(issuer_key, critical=False)
        )
        chain = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM) + self.pem
        return Leaf(_key_pem(key) + chain, now + (end - now) * 2 / 3)


def permitted(names: Names) -> list[str]:
    """Return what a CA made now may speak for: the mirrored hosts, the mirror's names and this machine's addresses."""
    hosts = {OLLAMAS, *names.mirrored, *names.own}
    return sorted(hosts | own_addresses(), key=lambda one: (_is_address(one), one))


def _ca_certificate(key: "EllipticCurvePrivateKey", names: Iterable[str], now: datetime) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    # The key's own digest in the name keeps two mirrors' CAs apart in a trust store.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = f"{_NAME} CA {identifier.digest.hex()[:8]}"
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    constraints = x509.NameConstraints([_subtree(name) for name in names], None)
    return (
        _begun(subject, issuer, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(constraints, critical=True)
        .sign(key, hashes.SHA256())
    )


def _begun(
    subject: str, issuer: "x509.Name", key: "EllipticCurvePrivateKey", now: datetime, end: datetime
) -> "x509.CertificateBuilder":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> "x509.GeneralName":
    from cryptography import x509

    bare = plain_host(name)
    return x509.IPAddress(ipaddress.ip_address(bare)) if _is_address(bare) else x509.DNSName(bare)


def _subtree(name: str) -> "x509.GeneralName":
    from cryptography import x509

    return x509.IPAddress(ipaddress.ip_network(name)) if _is_address(name) else x509.DNSName(name)


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _key_pem(key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _loaded_key(path: Path) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise BadCertificate(f"{path} is missing; mirror tls init makes a CA") from error
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise BadCertificate(f"{path} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise BadCertificate(f"{path} is no ECDSA key")
    return key


def _write(target: Path, content: bytes, mode: int, *, replace: bool) -> None:
    """Write a file whole or not at all; without ``replace`` never over another. Raises OSError."""
    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask and an older file of that name say
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(new, target)
        else:
            os.link(new, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)
