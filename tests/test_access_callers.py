"""Where a request comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mirror.access import Caller, Whereabouts

TRUSTED = ("10.0.0.0/8", "fd00::/8", "127.0.0.1/32")


def _of(peer: str | None, trusted: tuple[str, ...] = (), *, tls: bool = False, **headers: str) -> Caller:
    said = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Whereabouts(trusted).of(peer, said, tls=tls)


@pytest.mark.parametrize(
    ("peer", "address", "local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.9.9.9", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::ffff:10.1.2.3", "10.1.2.3", False),
        ("fe80::1%eth0", "fe80::1", False),
        ("192.168.1.9", "192.168.1.9", False),
        ("0.0.0.0", "0.0.0.0", False),
        (None, "", False),
        ("/run/socket", "/run/socket", False),
    ],
)
def test_the_peer_is_the_caller(peer: str | None, address: str, local: bool) -> None:
    """One spelling of each address, or limits and rules could be passed by another."""
    caller = _of(peer)
    assert (caller.address, caller.local) == (address, local)
    assert (caller.user, caller.key_id, caller.scopes) == ("anonymous", None, frozenset())


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto", "x-forwarded-host", "Via", "X-Client-IP",
     "CF-Connecting-IP", "X-Forwarded-Port", "X-Forwarded-Server", "True-Client-IP", "X-Cluster-Client-IP"],
)  # fmt: skip
def test_what_a_proxy_on_this_machine_brings_is_not_local(header: str) -> None:
    """A proxy that nobody told us of would else make everybody on the network an administrator."""
    said = CIMultiDict({header: "127.0.0.1"})
    caller = Whereabouts(()).of("127.0.0.1", said, tls=False)
    assert (caller.address, caller.local) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("10.0.0.1", "192.168.7.7", "192.168.7.7"),
        ("10.0.0.1", "1.1.1.1, 192.168.7.7", "192.168.7.7"),
        ("10.0.0.1", "1.1.1.1,192.168.7.7 , 10.0.0.2", "192.168.7.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "192.168.7.7:4711", "192.168.7.7"),
        ("fd00::1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("fd00::1", "::ffff:192.168.7.7", "192.168.7.7"),
        ("::ffff:10.0.0.1", "192.168.7.7", "192.168.7.7"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("192.168.1.1", "1.1.1.1", "192.168.1.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_trusted_proxies_say_who_it_was(peer: str, said: str, address: str) -> None:
    """The right-most address that is none of theirs: what stands before it the client may have written itself."""
    caller = _of(peer, TRUSTED, X_Forwarded_For=said)
    assert (caller.address, caller.local) == (address, False)


def test_the_scheme_is_believed_of_trusted_proxies_only() -> None:
    """It stands in the address where Ollama gets its token; anybody else could send it elsewhere."""
    assert _of("10.0.0.1", TRUSTED, X_Forwarded_Proto="https").secure
    assert _of("10.0.0.1", TRUSTED, X_Forwarded_Proto="http, HTTPS").secure
    assert not _of("10.0.0.1", TRUSTED, tls=True, X_Forwarded_Proto="http").secure
    assert not _of("192.168.1.1", TRUSTED, X_Forwarded_Proto="https").secure
    assert _of("192.168.1.1", TRUSTED, tls=True, X_Forwarded_Proto="http").secure


@given(st.text(max_size=60), st.sampled_from(["10.0.0.1", "127.0.0.1", "192.168.1.1"]))
def test_no_header_is_a_reason_for_an_exception(said: str, peer: str) -> None:
    """And none makes a caller local."""
    caller = _of(peer, TRUSTED, X_Forwarded_For=said, X_Forwarded_Proto=said)
    assert not caller.local
