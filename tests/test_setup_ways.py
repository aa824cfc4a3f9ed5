"""The ways as the facts make them: which are ready, and what their lines say. No server is needed for that."""

from pathlib import Path
from typing import Any

import pytest

from mirror.web.setup import KEYS, Facts, Place, Way, ways
from mirror.web.setup_text import setup_text

CA = "ab" * 32


def facts(**changes: Any) -> Facts:
    """A mirror with a name in a LAN, without a CA."""
    said: dict[str, Any] = {"id": "x", "version": "1", "url": "http://models.lan:11434"}
    return Facts(**{**said, "proxy": Place("models.lan", 11434), "ports": frozenset({11434}), **changes})


def way(key: str, **changes: Any) -> Way:
    """One of the ways of such a mirror."""
    return dict(zip(KEYS, ways(facts(**changes)), strict=True))[key]


def shown(found: Way) -> str:
    """Its lines."""
    return "\n".join(line for step in found.steps for line in step.lines)


@pytest.mark.parametrize(
    ("ports", "fingerprint", "uncovered", "lacks", "pull"),
    [
        ({11434}, None, (), "listen.addresses", ""),
        ({11434}, CA, (), "listen.addresses", ""),
        ({443}, None, (), "mirror tls init", ""),
        ({443}, CA, ("registry.ollama.ai",), "mirror tls renew", ""),
        ({443}, CA, ("hf.co",), "", "ollama pull llama3.2"),
        ({80}, None, (), "", "ollama pull --insecure llama3.2"),
        ({80, 443}, None, (), "", "ollama pull --insecure llama3.2"),
        ({80, 443}, CA, (), "", "ollama pull llama3.2"),
    ],
)
def test_dns_is_ready_with_a_port_and_what_that_port_needs(
    ports: set[int], fingerprint: str | None, uncovered: tuple[str, ...], lacks: str, pull: str
) -> None:
    """443 needs a CA for the registry; 80 needs nothing, and --insecure at every pull."""
    found = way("dns", ports=frozenset(ports), fingerprint=fingerprint, uncovered=uncovered)
    assert found.ready == (lacks == "")
    assert lacks in found.lacks
    assert pull in shown(found).splitlines() or not pull


@pytest.mark.parametrize(
    ("host", "address"), [("192.0.2.9", "192.0.2.9"), ("fd00::9", "fd00::9"), ("models.lan", "ADDRESS")]
)
def test_dns_leads_to_the_address_if_it_is_known(host: str, address: str) -> None:
    """A name cannot stand in a hosts file as an address."""
    lines = shown(way("dns", proxy=Place(host, 443))).splitlines()
    assert f"echo '{address} registry.ollama.ai' | sudo tee -a /etc/hosts" in lines


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_dns_never_leads_the_mirrors_own_machine_to_itself(host: str) -> None:
    """Its upstream has the same name, and it would ask itself."""
    assert "ADDRESS registry.ollama.ai" in shown(way("dns", proxy=Place(host, 443)))


@pytest.mark.parametrize(
    ("host", "port"), [("a b", 1), ("$(x)", 1), ("a;b", 1), ("a'b", 1), ("", 1), ("-x", 1), ("a\n", 1), ("a", 0)]
)
def test_a_place_holds_only_what_a_shell_takes_as_it_is(host: str, port: int) -> None:
    """It is the gate that every host passes on its way into a line."""
    with pytest.raises(ValueError, match="no place"):
        Place(host, port)


def test_a_mirror_of_another_registry_names_it_in_every_line() -> None:
    """Plain names are Ollama's own registry's, which such a mirror does not stand in for."""
    found = way("proxy", main="registry.lan", hosts=("registry.lan",), fingerprint=CA)
    assert "ollama pull registry.lan/library/llama3.2" in shown(found).splitlines()
    assert found.attempt[0].endswith("https://registry.lan/mirror/setup")


def test_a_folder_whose_name_would_break_a_line_is_not_ready() -> None:
    """A line break in it would begin a setting of its own."""
    found = way("folder", folder=Path("/srv/a\nExecStart=/bin/sh"))
    assert not found.ready
    assert "ExecStart" not in shown(found)


def test_the_undoing_takes_back_what_the_setting_up_made() -> None:
    """Each file that is written is removed, and each variable."""
    for key in ("plain-proxy", "proxy", "folder"):
        found = way(key, fingerprint=CA, folder=Path("/srv/models"))
        undone = "\n".join(line for step in found.undo for line in step.lines)
        assert f"mirror-{key}.conf <<'END'" in shown(found)
        assert f"sudo rm /etc/systemd/system/ollama.service.d/mirror-{key}.conf" in undone


def test_the_text_has_every_line_of_every_way() -> None:
    """What a terminal shows is no less than what a browser does."""
    every = ways(facts(fingerprint=CA))
    text = setup_text(facts(fingerprint=CA), every)
    for one in every:
        assert f"== {one.key} ==" in text
        for line in (*shown(one).splitlines(), *one.attempt, *one.leaves_out, one.lacks):
            assert line in text
