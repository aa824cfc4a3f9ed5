"""Which pages may ask, and by which names."""

import socket

import pytest

from mirror.access import OwnNames, Pages
from mirror.config import Settings

PAGES = Pages(["https://chat.lan", "http://*.corp.example:8080"])
NAMES = OwnNames(Settings(server={"names": ("models.example.org",), "public_url": "https://mirror.example.com/x"}))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:8080",
        "http://0.0.0.0",
        "HTTP://LOCALHOST:80",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://abc",
        "vscode-file://vscode-app",
        "https://chat.lan",
        "http://a.corp.example:8080",
    ],
)
def test_pages_that_ollama_lets_in_and_those_of_the_settings(origin: str) -> None:
    """What works with an Ollama works through the mirror."""
    assert PAGES.allow(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://evil.example/http://localhost",
        "http://localhost:80/x",
        "http://localhost:80@evil.example/",
        "http://localhost\n",
        "http://chat.lan",
        "https://chat.lan:444",
        "https://xchat.lan",
        "https://chatxlan",
        "http://corp.example:8080",
        "http://a.corp.example",
        "http://" + "a" * 600 + ".corp.example:8080",
    ],
)
def test_other_pages_are_not(origin: str) -> None:
    """A dot is a dot, and a name that only begins like one of ours is not ours."""
    assert not PAGES.allow(origin)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:11434",
        "127.0.0.1:11434",
        "192.168.1.5",
        "[::1]:11434",
        "[fe80::1%25eth0]:80",
        "mirror",
        "mirror.local",
        "mirror.lan:11434",
        "a.internal",
        "x.localhost",
        "models.example.org",
        "MODELS.example.org.:80",
        "mirror.example.com",
        socket.gethostname(),
    ],
)
def test_names_that_no_stranger_can_give_us(host: str) -> None:
    """Those who call the mirror by them are no page of another site."""
    assert NAMES.has(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:11434", "localhost.evil.example", "a.models.example.org", "127.0.0.1.nip.io",
     "lan.example", "1.2.3.4.5", "a:b:c"],
)  # fmt: skip
def test_names_that_a_stranger_can(host: str) -> None:
    """His DNS can make any of them mean this machine (DNS rebinding)."""
    assert not NAMES.has(host)
