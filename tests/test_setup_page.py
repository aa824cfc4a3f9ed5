"""``/mirror/setup`` says how to come in, to programs, browsers and terminals, and repeats nobody's bad Host."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from mirror.app import running_mirror
from mirror.listen import Authority, Names
from tests.fakes.registry import running_fake_registry
from tests.process import run
from tests.support import machine, settings
from tests.ways import WAYS, doors

NOWHERE = "http://127.0.0.1:9"
PAGE = "/mirror/setup"


def ours(folder: Path, **changes: Any) -> Any:
    """Settings of a mirror of registry.ollama.ai alone."""
    return settings(folder, NOWHERE, offline=True, **{"upstreams": (), **changes})


async def said(folder: Path, *, host: str | None = None, **changes: Any) -> dict[str, Any]:
    """What a mirror with these settings tells programs."""
    async with running_mirror(ours(folder, **changes)) as mirror, machine(mirror.url) as client:
        asked = f"{PAGE}?format=json"
        answer = await (client.get(asked, Host=host) if host else client.get(asked))
        assert answer.status == 200
        return dict(json.loads(answer.body))


def way(view: dict[str, Any], key: str) -> dict[str, Any]:
    """One way of what was said."""
    [found] = [one for one in view["ways"] if one["key"] == key]
    return dict(found)


def lines(view: dict[str, Any]) -> list[str]:
    """Every line that somebody may paste."""
    found = [line for one in view["ways"] for step in (*one["steps"], *one["undo"]) for line in step["lines"]]
    return [*found, *(line for one in view["ways"] for line in one["attempt"])]


async def test_each_reader_gets_the_form_it_can_read(tmp_path: Path) -> None:
    """A browser a page, a program JSON, and curl what to type."""
    async with running_mirror(ours(tmp_path)) as mirror, machine(mirror.url) as client:
        place = mirror.url.removeprefix("http://")
        page = await client.get(PAGE, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
        view = await client.get(PAGE, Accept="application/json")
        text = await client.get(PAGE, Accept="*/*")
        asked = await client.get(f"{PAGE}?format=json", Accept="text/html")
    kinds = [one.headers["Content-Type"].partition(";")[0] for one in (page, view, text, asked)]
    assert kinds == ["text/html", "application/json", "text/plain", "application/json"]
    assert json.loads(view.body) == json.loads(asked.body)
    for body in (page.body.decode(), text.body.decode()):
        assert f"ollama pull --insecure {place}/library/llama3.2" in body
        assert f"HTTPS_PROXY=http://{place}" in body
        assert "mirror tls init" in body
    assert not re.search(r"<script(?! src)|(src|href)=\"(?!#|/|data:,)", page.body.decode())
    assert view.headers["Cache-Control"] == "no-store"


async def test_one_way_alone_can_be_asked_for(tmp_path: Path) -> None:
    """Nobody who has chosen reads the others; what there is not is said to be so."""
    async with running_mirror(ours(tmp_path)) as mirror, machine(mirror.url) as client:
        text = (await client.get(f"{PAGE}?way=name")).body.decode()
        assert "== name ==" in text
        assert "== proxy ==" not in text
        for query in ("way=carrier-pigeon", "format=pdf"):
            answer = await client.get(f"{PAGE}?{query}")
            assert answer.status == 400
            assert b"plain-proxy" in answer.body


async def test_without_web_pages_a_browser_gets_the_text(tmp_path: Path) -> None:
    """The setting that switches pages off means this one too."""
    off = ours(tmp_path, features={"enable_web_ui": False})
    async with running_mirror(off) as mirror, machine(mirror.url) as client:
        answer = await client.get(PAGE, Accept="text/html")
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "host",
    ["$(reboot)", "a;reboot", "evil.example", "registry.ollama.ai", "x' y", "[::1", "127.0.0.1:0", "127.0.0.1:99999"],
)
async def test_a_host_that_is_not_ours_stands_in_no_line(tmp_path: Path, host: str) -> None:
    """Lines are pasted into root's shell: a link to a mirror must not be able to write them."""
    async with running_mirror(ours(tmp_path)) as mirror, machine(mirror.url) as client:
        for form in ("text", "html", "json"):
            answer = await client.get(f"{PAGE}?format={form}", Host=host)
            if answer.status == 400:  # it did not get past the server
                assert host not in ("evil.example", "registry.ollama.ai")
                continue
            body = answer.body.decode()
            assert mirror.url in body
            for bad in ("reboot", "evil", "99999", "127.0.0.1:0/", "x' y", "ai:80"):
                assert bad not in body.replace("0.0.0.0:80", "")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("192.168.7.5:11434", "http://192.168.7.5:11434"),
        ("LOCALHOST.:8080", "http://localhost:8080"),
        ("[fd00::5]:11434", "http://[fd00::5]:11434"),
        ("models.lan", "http://models.lan:80"),
    ],
)
async def test_an_address_and_the_mirrors_own_names_are_used_as_they_were(tmp_path: Path, host: str, url: str) -> None:
    """What the caller typed is what works for him, behind a container's port too."""
    view = await said(tmp_path, host=host, server__names=["models.lan"])
    assert view["url"] == url
    assert f"HTTP_PROXY={url}" in "\n".join(lines(view))
    assert bool(way(view, "name")["lacks"]) == ("[" in url)


async def test_the_public_url_goes_before_all(tmp_path: Path) -> None:
    """Behind https the name way needs no --insecure, and a proxy is still reached by plain HTTP."""
    view = await said(tmp_path, server__public_url="https://models.lan", host="192.168.7.5:11434")
    assert view["url"] == "https://models.lan"
    assert way(view, "name")["steps"][0]["lines"][0] == "ollama pull models.lan/library/llama3.2"
    assert view["proxy"].startswith("http://models.lan:")
    assert "192.168.7.5" not in json.dumps(view)
    below = await said(tmp_path, server__public_url="http://models.lan:8080/mirror")
    assert "a path" in way(below, "name")["lacks"]


async def test_what_a_way_lacks_is_said_with_what_to_do(tmp_path: Path) -> None:
    """And is no longer once there is a CA, without a restart."""
    made = ours(tmp_path)
    async with running_mirror(made) as mirror, machine(mirror.url) as client:
        before = json.loads((await client.get(f"{PAGE}?format=json")).body)
        authority = Authority.make(tmp_path / "state", Names.of(made))
        after = json.loads((await client.get(f"{PAGE}?format=json")).body)
        text = (await client.get(PAGE)).body.decode()
    assert {one["key"]: one["ready"] for one in before["ways"]} == {
        "name": True,
        "plain-proxy": True,
        "proxy": False,
        "dns": False,
        "folder": False,
    }
    assert (before["ca"], "mirror tls init" in way(before, "proxy")["lacks"]) == (None, True)
    assert "listen.addresses" in way(before, "dns")["lacks"]
    assert (after["ca"]["sha256"], way(after, "proxy")["ready"]) == (authority.fingerprint, True)
    printed = await run("openssl", "x509", "-in", str(tmp_path / "state/tls/ca.pem"), "-noout", *_FINGERPRINT)
    assert printed.out.strip().partition("=")[2] in text
    assert before["id"] == after["id"]


_FINGERPRINT = ("-fingerprint", "-sha256")


async def test_the_folder_is_told_to_callers_on_the_machine_with_its_name_quoted(tmp_path: Path) -> None:
    """A space or a per cent sign in it means something to a shell and to systemd."""
    store = tmp_path / "my 100% models"
    view = await said(tmp_path, cache={"directory": store, "state": tmp_path / "state", "shared_with_ollama": True})
    folder = way(view, "folder")
    assert folder["ready"]
    assert f'Environment="OLLAMA_MODELS={str(store).replace("%", "%%")}"' in folder["steps"][0]["lines"]
    assert f"OLLAMA_MODELS={store}" in shlex.split(folder["steps"][1]["lines"][0])
    assert str(store) not in json.dumps(await said(tmp_path))


async def test_models_of_further_upstreams_are_named_as_the_settings_say(tmp_path: Path) -> None:
    """By namespace or port at the mirror's name; else only the other ways lead to them, and that is said."""
    one = {"name": "one", "url": NOWHERE, "hosts": ["one.example"], "namespaces": ["acme"]}
    two = {"name": "two", "url": NOWHERE, "hosts": ["two.example"]}
    view = await said(tmp_path, upstreams=[one, two], host="127.0.0.1:11434")
    assert view["mirrored"] == ["registry.ollama.ai", "one.example", "two.example"]
    name = way(view, "name")
    assert "ollama pull --insecure 127.0.0.1:11434/acme/MODEL" in name["steps"][1]["lines"]
    assert any("two.example" in left for left in name["leaves_out"])
    assert "ollama pull --insecure two.example/NAMESPACE/MODEL" in way(view, "plain-proxy")["steps"][-1]["lines"]


async def test_who_asks_by_a_loopback_address_is_told_what_others_use(tmp_path: Path) -> None:
    """The lines of the one who set it up are of no use on another machine."""
    async with running_mirror(ours(tmp_path, server__host="0.0.0.0")) as mirror, machine(mirror.url) as client:
        view = json.loads((await client.get(f"{PAGE}?format=json")).body)
        text = (await client.get(PAGE)).body.decode()
    assert all(URL(one).port == URL(mirror.url).port for one in view["elsewhere"])
    assert not any("127.0.0.1" in one for one in view["elsewhere"])
    assert ("You asked by an address of this machine alone" in text) == bool(view["elsewhere"])


@pytest.mark.parametrize("by", WAYS)
async def test_it_is_the_same_mirror_by_every_way(tmp_path: Path, by: str) -> None:
    """The id is how a check knows that it came to the right place; the lines are the mirror's, not the registry's."""
    async with running_fake_registry() as fake, doors(tmp_path, fake, upstreams=()) as front:
        plain = json.loads(await front.get("http", f"{PAGE}?format=json", tmp_path / "a"))
        other = json.loads(await front.get(by, f"{PAGE}?format=json", tmp_path / "b"))
    assert other["id"] == plain["id"]
    assert other["url"] == front.mirror.url
