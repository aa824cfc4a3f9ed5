"""The CA: bound to its names, as other programs see it, and never written over."""

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from yarl import URL

from mirror.config import ListenSettings, Settings
from mirror.errors import BadCertificate
from mirror.listen import Authority, Certificates, Names
from mirror.listen.ca import CA_LIFE, LEAF_LIFE
from tests.fakes.registry import running_fake_registry
from tests.net import certificates
from tests.process import run
from tests.support import mirrored
from tests.ways import HOST, doors, tls_socket

NAMES = Names(frozenset({HOST, "up.example"}), frozenset({"models.lan"}))


def written(folder: Path, name: str, authority: Authority) -> tuple[str, str]:
    """Write the CA's certificate and a leaf of it where openssl reads them."""
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "leaf.pem").write_bytes(authority.leaf(name).pem)
    return str(folder / "ca.pem"), str(folder / "leaf.pem")


@pytest.mark.parametrize("name", [HOST, "up.example", "models.lan", "127.0.0.1", "::1"])
async def test_openssl_verifies_a_leaf_for_each_permitted_name(name: str, tmp_path: Path) -> None:
    """By purpose and by name."""
    ca, leaf = written(tmp_path, name, Authority.make(tmp_path / "state", NAMES))
    which = "-verify_ip" if name in ("127.0.0.1", "::1") else "-verify_hostname"
    done = await run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, which, name, leaf)
    assert (done.code, done.out.strip()) == (0, f"{leaf}: OK"), done.err


@pytest.mark.parametrize("name", ["example.org", "evil.example", "ai", "10.11.12.13", "fe80::1", "2001:db8::7"])
async def test_openssl_refuses_a_leaf_for_any_other_host(name: str, tmp_path: Path) -> None:
    """Whoever steals the key can stand in for the mirrored hosts only: the constraints are critical."""
    ca, leaf = written(tmp_path, name, Authority.make(tmp_path / "state", NAMES))
    done = await run("openssl", "verify", "-CAfile", ca, leaf)
    assert done.code != 0
    assert "permitted subtree violation" in done.err + done.out


async def test_the_certificates_say_what_they_should(tmp_path: Path) -> None:
    """RFC 5280: a CA without CAs below it, ten years; leaves of ninety days that serve and do nothing else."""
    authority = Authority.make(tmp_path / "state", NAMES)
    basic = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length, constraints.critical) == (True, True, 0, True)
    life = authority.certificate.not_valid_after_utc - datetime.now(UTC)
    assert CA_LIFE - timedelta(minutes=1) < life <= CA_LIFE
    assert {HOST, "up.example", "models.lan", "127.0.0.1", "::1"} <= set(authority.names)
    leaf = authority.leaf(HOST)
    certificate = x509.load_pem_x509_certificate(leaf.pem[leaf.pem.index(b"-----BEGIN CERT") :])
    assert LEAF_LIFE - timedelta(minutes=1) < certificate.not_valid_after_utc - datetime.now(UTC) <= LEAF_LIFE


async def test_nothing_is_written_over_and_the_key_is_its_owners_alone(tmp_path: Path) -> None:
    """A CA that is trusted on a hundred machines must not go by mistake."""
    state = tmp_path / "state"
    Authority.make(state, NAMES)
    files = {path: path.read_bytes() for path in (state / "tls").iterdir()}
    assert {path.name for path in files} == {"ca.pem", "ca.key"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600}
    with pytest.raises(BadCertificate, match="is there already"):
        Authority.make(state, NAMES)
    (state / "tls" / "ca.pem").unlink()
    with pytest.raises(BadCertificate, match=r"ca\.key is there already"):
        Authority.make(state, NAMES)
    assert (state / "tls" / "ca.key").read_bytes() == files[state / "tls" / "ca.key"]


async def test_a_renewed_ca_keeps_its_key(tmp_path: Path) -> None:
    """Who trusts the old certificate verifies new leaves with it, and the other way round."""
    state = tmp_path / "state"
    old = Authority.make(state, NAMES)
    new = Authority.renew(state, Names(NAMES.mirrored, frozenset({"other.lan"})))
    assert "other.lan" in new.names
    assert old.certificate.serial_number != new.certificate.serial_number
    for trusted, signing in ((old, new), (new, old)):
        (tmp_path / "ca.pem").write_bytes(trusted.pem)
        (tmp_path / "leaf.pem").write_bytes(signing.leaf(HOST).pem)
        done = await run("openssl", "verify", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem"))
        assert done.code == 0, done.err


@pytest.mark.parametrize("broken", ["ca.pem", "ca.key"])
async def test_broken_files_are_told_and_tls_is_without(broken: str, tmp_path: Path) -> None:
    """The mirror goes on by plain HTTP."""
    state = tmp_path / "state"
    Authority.make(state, NAMES)
    (state / "tls" / broken).write_text("not this")
    with pytest.raises(BadCertificate, match=broken):
        Authority.load(state)
    assert await Certificates(state, NAMES, ListenSettings()).context(HOST, "127.0.0.1") is None


async def test_a_leaf_is_kept_and_made_anew_before_its_end(tmp_path: Path) -> None:
    """And when the CA is another."""
    clock = [datetime.now(UTC)]
    state = tmp_path / "state"
    Authority.make(state, NAMES)
    held = Certificates(state, NAMES, ListenSettings(), lambda: clock[0])
    first = await held.context(HOST, "127.0.0.1")
    assert await held.context(HOST.upper() + ".", "127.0.0.1") is first
    assert await held.context("127.0.0.1", "127.0.0.1") is not first
    assert await held.context("example.org", "127.0.0.1") is None
    clock[0] += LEAF_LIFE * 0.7
    second = await held.context(HOST, "127.0.0.1")
    assert second is not first
    Authority.renew(state, NAMES)
    assert await held.context(HOST, "127.0.0.1") is not second


async def test_own_files_serve_own_names_and_are_read_again(tmp_path: Path) -> None:
    """The mirrored host is still answered by the CA; broken files leave the last good ones in use."""
    for one in ("first", "second"):
        (tmp_path / one).mkdir()
        certificates(tmp_path / one)
    used = tmp_path / "used.pem"
    used.write_bytes((tmp_path / "first" / "server.pem").read_bytes())
    async with running_fake_registry() as fake, doors(tmp_path, fake, listen__certificate=used) as there:

        async def trusts(ca: Path, name: str) -> bool:
            try:
                await tls_socket(there.port, ssl.create_default_context(cafile=str(ca)), name)
            except ssl.SSLError:
                return False
            return True

        first, second = tmp_path / "first" / "ca.pem", tmp_path / "second" / "ca.pem"
        assert await trusts(first, "localhost")
        assert await trusts(there.ca, HOST)
        assert not await trusts(there.ca, "localhost")
        used.write_text("half a file")
        assert await trusts(first, "localhost")
        used.write_bytes((tmp_path / "second" / "server.pem").read_bytes())
        assert await trusts(second, "localhost")
        assert not await trusts(first, "localhost")


async def test_own_files_do_without_a_ca_beside_an_upstream_on_the_same_machine(tmp_path: Path) -> None:
    """The address at which a client has come in is the mirror's, whatever else is there."""
    certificates(tmp_path)
    async with (
        running_fake_registry() as fake,
        mirrored(tmp_path, fake, listen__certificate=tmp_path / "server.pem") as (mirror, _),
    ):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        agreed = await tls_socket(URL(mirror.url).port or 0, context, "localhost")
        assert agreed.version() == "TLSv1.3"


async def test_python_and_curl_refuse_without_the_ca(tmp_path: Path) -> None:
    """TLS stands for what it should."""
    async with running_fake_registry() as fake, doors(tmp_path, fake) as there:
        with pytest.raises(ssl.SSLCertVerificationError):
            await tls_socket(there.port, ssl.create_default_context(), HOST)
        assert (await run("curl", "-s", f"https://127.0.0.1:{there.port}/v2/")).code == 60
        agreed = await tls_socket(there.port, there.context())
        assert agreed.getpeercert()["subjectAltName"] == (("IP Address", "127.0.0.1"),)  # type: ignore[index]
        old = there.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await tls_socket(there.port, old, HOST)).version() == "TLSv1.2"


async def test_the_names_come_from_the_settings() -> None:
    """Of an upstream with a port or a path the host counts."""
    said = Settings(
        server={"public_url": "https://Models.LAN:8443/x", "host": "192.0.2.9"},
        upstream={"host": "up.lan:5000", "url": "http://Other.lan:99/prefix"},
        listen={"addresses": ["[::1]:443", "0.0.0.0:80"]},
    )
    names = await asyncio.to_thread(Names.of, said)
    assert names.mirrored == {"up.lan", "other.lan", "hf.co", "huggingface.co"}
    assert {"models.lan", "192.0.2.9", "::1", "localhost"} <= names.own
    assert "0.0.0.0" not in names.own
    assert names.answers("[::ffff:10.1.2.3]", "10.1.2.3")
    assert not names.answers("10.1.2.4", "10.1.2.3")
