"""``mirror doctor`` on what leads to the mirror and away from it: names, the CA, upstreams, blobs for clients."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror.app.doctor import Finding, Verdict, examine
from mirror.app.doctor.certificates import ca
from mirror.app.doctor.network import dns, judged
from mirror.app.doctor.served import served
from mirror.config import Settings
from mirror.listen import Authority, Names
from tests.fakes.registry import running_fake_registry
from tests.net import answering
from tests.stored import made
from tests.support import add_blob, blob_path, mirrored, settings

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM
NOWHERE = "http://127.0.0.1:9"


async def found(said: Settings) -> list[Finding]:
    """All that is found, where no Ollama runs."""
    return [one async for one in examine(said, ())]


def about(findings: list[Finding], matter: str) -> list[Finding]:
    """What was found about one matter."""
    return [one for one in findings if one.matter == matter]


def offline(folder: Path, **changes: Any) -> Settings:
    """Settings of a mirror of registry.ollama.ai alone that asks nobody."""
    return settings(folder, "https://registry.ollama.ai", offline=True, **{"upstreams": (), **changes})


@pytest.mark.parametrize(
    ("url", "own", "ports", "verdict"),
    [
        ("http://localhost:5000", (), {11434}, OK),
        ("http://localhost:11434", (), {11434}, PROBLEM),
        ("http://192.0.2.7", ("192.0.2.7",), {80}, PROBLEM),
        ("https://192.0.2.7", ("192.0.2.7",), {80}, OK),
        ("https://192.0.2.7", ("192.0.2.8",), {443}, OK),
        ("https://no-such-host.invalid", (), {443}, WARNING),
    ],
)
async def test_an_upstream_that_is_the_mirror_itself_is_a_loop(
    url: str, own: tuple[str, ...], ports: set[int], verdict: Verdict
) -> None:
    """The DNS way changes the resolver, and the mirror's own machine may have the same one."""
    seen = await dns(url, own, ports)
    assert (seen.matter, seen.verdict) == ("dns", verdict)
    assert ("ask itself" in seen.said and "resolver" in seen.advice) == (verdict is PROBLEM)


@pytest.mark.parametrize(
    ("found_at", "verdict"), [(["127.0.0.1"], PROBLEM), (["198.51.100.4", "192.0.2.7"], PROBLEM), (["192.0.2.8"], OK)]
)
def test_ollamas_registry_is_never_on_the_mirrors_machine(found_at: list[str], verdict: Verdict) -> None:
    """Its name leads here by a hosts file or a resolver only, whether or not the mirror has that port."""
    assert judged("registry.ollama.ai", 443, found_at, ("192.0.2.7",), {11434}).verdict is verdict


async def test_a_mirror_whose_upstream_is_itself_is_not_asked(tmp_path: Path) -> None:
    """Each question would be answered by another one."""
    made(tmp_path)
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, heads):
        port = int(url.rpartition(":")[2])
        seen = await found(settings(tmp_path, url, upstreams=(), server__port=port))
    assert about(seen, "dns")[0].verdict is PROBLEM
    assert about(seen, "upstream") == []
    assert heads == []


async def test_further_upstreams_are_asked_once_each(tmp_path: Path) -> None:
    """One that is away is a warning: the others' models come all the same."""
    made(tmp_path)
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with answering(good) as (main, asked), answering(good) as (one, asked_too):
        further = [
            {"name": "one", "url": one, "hosts": ["one.example"]},
            {"name": "away", "url": NOWHERE, "hosts": ["away.example"]},
        ]
        seen = about(await found(settings(tmp_path, main, upstreams=further)), "upstream")
    assert [finding.verdict for finding in seen] == [OK, OK, WARNING]
    assert "take away out of upstreams" in seen[2].advice
    assert (len(asked), len(asked_too)) == (1, 1)


def test_a_ca_is_looked_at_before_it_ends(tmp_path: Path) -> None:
    """On the day that it ends every machine of the LAN stops pulling at once."""
    names = Names.of(offline(tmp_path))
    assert [one.verdict for one in ca(tmp_path / "state", names)] == [OK]
    authority = Authority.make(tmp_path / "state", names)
    end = authority.certificate.not_valid_after_utc
    for now, verdict, said in (
        (datetime.now(UTC), OK, "good until"),
        (end - timedelta(days=61), OK, "good until"),
        (end - timedelta(days=59), WARNING, "in 59 days"),
        (end + timedelta(days=1), PROBLEM, "ended on"),
    ):
        [seen] = ca(tmp_path / "state", names, now)
        assert (seen.verdict, said in seen.said, "mirror tls renew" in seen.advice) == (
            verdict,
            True,
            verdict is not OK,
        )


async def test_a_host_that_the_ca_does_not_cover_is_named(tmp_path: Path) -> None:
    """A further upstream was added after the CA was made."""
    Authority.make(tmp_path / "state", Names.of(offline(tmp_path)))
    further = ({"name": "one", "url": NOWHERE, "hosts": ["one.example"]},)
    [seen] = about(await found(offline(tmp_path, upstreams=further)), "ca")
    assert (seen.verdict, "one.example" in seen.said, "mirror tls renew" in seen.advice) == (WARNING, True, True)


async def test_a_key_that_others_read_is_a_problem(tmp_path: Path) -> None:
    """Who has it can be the registry for every machine that trusts the CA; a CA that is half there is none."""
    Authority.make(tmp_path / "state", Names.of(offline(tmp_path)))
    key = tmp_path / "state" / "tls" / "ca.key"
    key.chmod(0o640)
    [seen] = about(await found(offline(tmp_path)), "ca")
    assert (seen.verdict, "chmod 600" in seen.advice) == (PROBLEM, True)
    key.unlink()
    assert [one.verdict for one in about(await found(offline(tmp_path)), "ca")] == [PROBLEM]


async def test_a_mirror_that_serves_is_asked_for_a_blob(tmp_path: Path) -> None:
    """Length, Location and ranges are what every pull stands on."""
    async with running_fake_registry() as fake:
        add_blob(fake, 60_000)
        said = settings(tmp_path, fake.url, upstreams=())
        async with mirrored(tmp_path, fake, upstreams=()) as (_, client):
            [nothing] = about(await found(said), "range")
            for blob in (await client.manifest()).blobs:
                await client.get(blob_path(blob.digest))
            seen = await found(said)
    assert (nothing.verdict, "no model yet" in nothing.said) == (OK, True)
    assert [one.verdict for matter in ("length", "location", "range") for one in about(seen, matter)] == [OK, OK, OK]


async def test_what_serves_and_is_no_mirror_is_a_warning() -> None:
    """Doctor goes on to the other matters."""
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as (url, _):
        [seen] = [one async for one in served(url, None)]
    assert (seen.verdict, "does not say" in seen.said) == (WARNING, True)
