"""``mirror setup`` tells which ways work from a machine, and what is the matter with those that do not."""

import asyncio
import json
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from mirror.app import running_mirror
from mirror.client.probe import Sample, probe
from mirror.client.roots import roots
from mirror.client.ways import Check, Ground, Outcome, Ways
from mirror.errors import ServerError
from mirror.listen import Authority, Names
from tests.fakes.registry import running_fake_registry
from tests.net import answering
from tests.process import mirror as command
from tests.support import add_blob, blob_path, machine, settings
from tests.ways import HOST, Doors, doors

OK, NOT_READY, FAILED = Outcome.OK, Outcome.NOT_READY, Outcome.FAILED
NOWHERE = "http://127.0.0.1:9"
AWAY = "34.120.132.20"


def ours(folder: Path, **changes: Any) -> Any:
    """Settings of a mirror of registry.ollama.ai alone."""
    return settings(folder, NOWHERE, offline=True, **{"upstreams": (), **changes})


def ground(url: str, *names: str, tls: ssl.SSLContext | None = None) -> Ground:
    """A machine where the registry's name has these addresses, at the port of ``url``."""

    async def resolve(host: str) -> list[str]:
        return list(names) if host == HOST else ["127.0.0.1"]

    port = URL(url).port or 0
    return Ground(tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), resolve, port, port)


def trusting(front: Doors, *names: str) -> Ground:
    """The same, which trusts the CA."""
    return ground(front.mirror.url, *names, tls=roots({"SSL_CERT_DIR": "/nowhere"}, front.ca))


async def checked(url: str, here: Ground, way: str | None = None) -> dict[str, Check]:
    """What the checks of the mirror at ``url`` come to."""
    ways = Ways(url, here)
    return {one.way: one for one in await ways.checks(await ways.said(way), way)}


def outcomes(checks: dict[str, Check]) -> dict[str, Outcome]:
    """How each ended."""
    return {key: one.outcome for key, one in checks.items()}


async def test_every_way_to_a_mirror_that_is_set_up_is_ok(tmp_path: Path) -> None:
    """The folder is not taken: it is another machine's business."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, upstreams=(), upstream__host=HOST) as front:
        add_blob(fake, 70_000)
        async with machine(front.mirror.url) as client:
            for blob in (await client.manifest()).blobs:
                await client.get(blob_path(blob.digest))
        seen = await checked(front.mirror.url, trusting(front, "127.0.0.1"))
    assert outcomes(seen) == {"name": OK, "plain-proxy": OK, "proxy": OK, "dns": OK, "folder": NOT_READY, "blobs": OK}
    assert "by HTTPS" in seen["dns"].said


async def test_without_a_ca_only_the_ways_that_need_it_are_not_ready(tmp_path: Path) -> None:
    """And the sentence is the mirror's own: what to run there."""
    async with running_mirror(ours(tmp_path)) as mirror:
        seen = await checked(mirror.url, ground(mirror.url, "127.0.0.1"))
    assert outcomes(seen) == {
        "name": OK,
        "plain-proxy": OK,
        "proxy": NOT_READY,
        "dns": OK,
        "folder": NOT_READY,
        "blobs": NOT_READY,
    }
    assert "mirror tls init" in seen["proxy"].advice
    assert "--insecure" in seen["dns"].said
    assert "no model yet" in seen["blobs"].said


async def test_a_ca_that_is_not_trusted_here_is_told_from_everything_else(tmp_path: Path) -> None:
    """It is the one thing that is to be done on this machine."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, upstreams=()) as front:
        seen = await checked(front.mirror.url, ground(front.mirror.url, "127.0.0.1"))
    assert seen["proxy"].outcome is FAILED
    assert seen["proxy"].said == "the mirror's CA is not trusted on this machine"
    assert "mirror tls trust" in seen["proxy"].advice
    assert "not trusted" in seen["dns"].said


async def test_a_ca_that_may_not_speak_for_the_registry_is_refused(tmp_path: Path) -> None:
    """CONNECT ends with a refusal, which is no question of trust."""
    Authority.make(tmp_path / "state", Names.of(ours(tmp_path)))
    async with running_mirror(ours(tmp_path, upstream__host="other.example")) as mirror:
        seen = await checked(mirror.url, ground(mirror.url), "proxy")
    assert seen["proxy"].outcome is FAILED
    assert "refused (403)" in seen["proxy"].said
    assert "mirror tls renew" in seen["proxy"].advice


async def test_another_mirror_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """A second one in the LAN, or the one of before that is still in the DNS."""
    (tmp_path / "b").mkdir()
    async with running_mirror(ours(tmp_path)) as one, running_mirror(ours(tmp_path / "b")) as two:
        seen = await checked(one.url, ground(two.url, "127.0.0.1"), "dns")
    assert (seen["dns"].outcome, "another mirror" in seen["dns"].said) == (FAILED, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "no mirror"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no mirror"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"", "no answer"),
    ],
)
async def test_a_proxy_that_is_no_mirror_is_said_to_be_none(tmp_path: Path, answer: bytes, said: str) -> None:
    """A captive portal or a web server answers everything."""
    async with running_mirror(ours(tmp_path)) as mirror:
        view = await Ways(mirror.url, ground(mirror.url)).said()
    async with answering(answer) as (url, _):
        [check, _] = await Ways(url, ground(url)).checks(view, "plain-proxy")
    assert (check.outcome, said in check.said) == (FAILED, True)


async def test_a_mirror_that_has_gone_fails_every_way(tmp_path: Path) -> None:
    """Each with a sentence, none with a traceback."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, upstreams=()) as front:
        ways = Ways(front.mirror.url, trusting(front, "127.0.0.1"))
        view = await ways.said()
    seen = {one.way: one for one in await ways.checks(view)}
    assert [seen[key].outcome for key in ("name", "plain-proxy", "proxy")] == [FAILED] * 3
    assert all(seen[key].said and seen[key].advice for key in ("name", "plain-proxy", "proxy"))
    assert seen["dns"].outcome is NOT_READY
    assert "listen.addresses" in seen["dns"].said
    with pytest.raises(ServerError, match="does not answer"):
        await ways.said()


@pytest.mark.parametrize(("names", "said"), [((), "does not resolve"), ((AWAY,), f"resolves to {AWAY} here")])
async def test_a_name_that_leads_elsewhere_is_not_asked(tmp_path: Path, names: Sequence[str], said: str) -> None:
    """Nothing is sent to the real registry: not even a question whether it is a mirror."""
    async with running_mirror(ours(tmp_path)) as mirror:
        async with asyncio.timeout(4):  # less than a question that nobody answers may take
            seen = await checked(mirror.url, ground(mirror.url, *names), "dns")
    assert (seen["dns"].outcome, said in seen["dns"].said) == (NOT_READY, True)


async def test_blobs_that_ollama_could_not_pull_are_said_to_be_so() -> None:
    """A proxy between here and the mirror may take headers and ranges away."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    async with answering(head, head + b"hello") as (url, heads), aiohttp.ClientSession() as session:
        found = await probe(session, Sample(URL(url), "sha256:x", 6))
    assert [(one.matter, one.good) for one in found] == [("length", False), ("location", False), ("range", False)]
    assert "5 Content-Length" in found[0].said
    assert "without Location" in found[1].said
    assert heads[2].split(b"\r\n", 1)[0].startswith(b"GET")
    assert b"bytes=0-0" in heads[2]


def test_trust_is_told_as_go_tells_it(tmp_path: Path) -> None:
    """SSL_CERT_FILE takes the bundle's place, SSL_CERT_DIR is a list of folders whatever their files are called."""
    folder = tmp_path / "certs"
    folder.mkdir()
    Authority.make(tmp_path / "one", Names.of(ours(tmp_path)))
    Authority.make(tmp_path / "two", Names.of(ours(tmp_path)))
    file = str(tmp_path / "one" / "tls" / "ca.pem")
    (folder / "whatever").write_bytes((tmp_path / "two" / "tls" / "ca.pem").read_bytes())
    (folder / "README").write_text("no certificate")
    none = {"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere"}

    def count(**said: str) -> int:
        return len(roots({**none, **said}).get_ca_certs())

    assert count() == 0
    assert count(SSL_CERT_FILE=file) == 1
    assert count(SSL_CERT_DIR=f"/nowhere:{folder}") == 1
    assert count(SSL_CERT_FILE=file, SSL_CERT_DIR=str(folder)) == 2
    assert len(roots(none, Path(file)).get_ca_certs()) == 1


async def test_the_command_prints_the_lines_and_what_works(tmp_path: Path) -> None:
    """Exit code 0 where a way works, 1 where none does; the mirror of this machine is found by its store."""
    said = ours(tmp_path)
    store = ("--store", str(tmp_path / "store"))
    state = {"OLLAMA_MIRROR_CACHE_STATE": str(tmp_path / "state")}
    async with running_mirror(said) as mirror:
        whole = await command("setup", *store, env=state)
        assert whole.code == 0, whole.err
        assert "== proxy ==" in whole.out
        assert "ok        plain-proxy" in whole.out
        one = await command("setup", "--server", mirror.url, "--way", "proxy", "--json")
        assert one.code == 1
        view = json.loads(one.out)
        assert [way["key"] for way in view["ways"]] == ["proxy"]
        assert [check["outcome"] for check in view["checks"] if check["way"] == "proxy"] == ["not ready"]
        lines = await command("setup", "--server", mirror.url, "--way", "proxy", "--no-check")
        assert (lines.code, "From this machine" in lines.out) == (0, False)
    gone = await command("setup", *store, env=state)
    assert (gone.code, gone.out) == (1, "")
    assert "mirror serve" in gone.err
    away = await command("setup", "--server", mirror.url)
    assert (away.code, "does not answer" in away.err) == (1, True)


async def test_the_command_trusts_a_ca_it_is_given(tmp_path: Path) -> None:
    """So that a CA can be tried before the machine is made to trust it."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, upstreams=(), upstream__host=HOST) as front:
        arguments = ("setup", "--server", front.mirror.url, "--way", "proxy", "--json")
        without = json.loads((await command(*arguments)).out)
        tried = await command(*arguments, "--ca", str(front.ca))
        by_file = await command(*arguments, env={"SSL_CERT_FILE": str(front.ca)})
    assert without["checks"][0]["outcome"] == "failed"
    assert (tried.code, json.loads(tried.out)["checks"][0]["outcome"]) == (0, "ok")
    assert json.loads(by_file.out)["checks"][0]["outcome"] == "ok"


async def test_a_mirror_that_asks_for_a_key_says_so_and_takes_it(tmp_path: Path) -> None:
    """The lines are for everybody; pulls are for those with a key, and this machine's commands need none."""
    store = ("setup", "--store", str(tmp_path / "store"), "--json")
    guarded = ours(tmp_path, security={"api_key": "a long secret", "anonymous": ["none"]})
    async with running_mirror(guarded) as mirror:
        without = await checked(mirror.url, ground(mirror.url))
        shown = Ways(mirror.url, ground(mirror.url), "a long secret")
        with_it = {one.way: one for one in await shown.checks(await shown.said())}
        here = await command(*store, env={"OLLAMA_MIRROR_CACHE_STATE": str(tmp_path / "state")})
    assert (without["name"].outcome, "mirror key add" in without["name"].advice) == (NOT_READY, True)
    assert "security.api_key" in without["blobs"].advice
    assert (with_it["name"].outcome, "no model yet" in with_it["blobs"].said) == (OK, True)
    assert {one["way"]: one["outcome"] for one in json.loads(here.out)["checks"]}["name"] == "ok"


async def test_control_characters_of_a_server_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Whoever answers at a URL must not be able to move the cursor of who asks."""
    async with running_mirror(ours(tmp_path)) as mirror:
        view = await Ways(mirror.url, ground(mirror.url)).said("folder")
    view["ways"][0]["lacks"] = "\x1b[2Jgone"
    body = json.dumps(view).encode()
    text = b"\x1b]0;title\x07lines"
    head = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"
    answers = [head.format(len(one)).encode() + one for one in (body, text, body)]
    async with answering(*answers) as (url, _):
        said = await command("setup", "--server", url, "--way", "folder")
    assert "\x1b" not in said.out + said.err
    assert "lines" in said.out


def test_a_ground_is_the_machine_unless_said_otherwise() -> None:
    """The ports of the registry's own URL are what a name leads to."""
    plain = Ground(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert (plain.https_port, plain.http_port) == (443, 80)
    assert replace(plain, http_port=8080).https_port == 443
