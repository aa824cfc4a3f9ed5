"""What commands show of this machine's secrets, and to whom."""

from pathlib import Path

import pytest

from mirror.cli.reach import shown
from mirror.config import Settings
from tests.net import answering
from tests.process import mirror

SAID = Settings(security={"api_key": "hush"}, server={"port": 11434, "public_url": "https://models.example/x"})
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\nConnection: close\r\n\r\n"
MODELS = EMPTY + b'{"models": []}'


async def test_the_key_of_the_settings_is_not_sent_to_whoever_is_named(tmp_path: Path) -> None:
    """``--server`` may name anybody, and on the mirror's machine the settings hold the key to everything."""
    file = tmp_path / "config.yaml"
    file.write_text("security: {api_key: hush-hush}\nserver: {port: 9}\n")
    async with answering(MODELS) as (url, heads):
        for command in (("list",), ("key", "list"), ("setup", "--no-check")):
            await mirror(*command, "--config", str(file), "--server", url)
        assert len(heads) >= 3
        assert not any(b"authorization" in head.lower() for head in heads)
        before = len(heads)
        ended = await mirror("list", "--server", url, env={"OLLAMA_MIRROR_API_KEY": "asked-for"})
        assert ended.code == 0, ended.err
        assert b"Authorization: Bearer asked-for" in heads[before], "a key in the environment is there to be shown"


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ("https://models.example", "hush"),
        ("https://models.example:443/x", "hush"),
        ("http://localhost:11434", "hush"),
        ("http://127.0.0.1:11434", "hush"),
        ("http://models.example", None),
        ("https://models.example:444", None),
        ("http://127.0.0.1:11435", None),
        ("http://127.0.0.1", None),
        ("https://127.0.0.1:11434", None),
        ("http://evil.example:11434", None),
        ("http://localhost.evil.example:11434", None),
    ],
)
def test_this_mirror_may_be_called_by_its_own_address(named: str, key: str | None) -> None:
    """Who names the mirror of these very settings need not look for its key."""
    assert shown(SAID, named) == key
