"""What the documents name is there: commands with their options, settings, variables, files, pages of the site."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from mirror.cli import main
from mirror.config.aliases import NOT_SETTINGS, VARIABLES
from mirror.config.sections import FIELDS, SECTIONS

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_KEY = re.compile(rf"\b(?:{'|'.join(SECTIONS)})\.[a-z_]+\b")
_VARIABLE = re.compile(r"\bOLLAMA_MIRROR_[A-Z_]+\b")
_OF_FILES = (".json", ".key", ".pem", ".db", ".lock", ".sh", ".yaml", ".md", ".py", ".log", ".yml", ".service")
every = pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of ours in a page, in code blocks and within sentences."""
    lines = [line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *_INLINE.findall(text)):
        for part in re.split(r"[|;&]+|\$\(", line.partition(" #")[0]):
            words = part.split()
            while words and (re.fullmatch(r"[A-Z_]+=\S*", words[0]) or words[0] == "sudo"):
                words = words[1:]
            if words[:1] == ["mirror"] and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1].partition("|")[0]):
                yield _split(part, words)


def _split(part: str, words: list[str]) -> list[str]:
    try:
        return shlex.split(part[part.index("mirror") :])
    except ValueError:
        return words


@every
def test_commands_and_options_are_there(page: Path) -> None:
    """Somebody will type them."""
    for words in commands(page.read_text()):
        found: click.Command = main
        for word in words[1:]:
            if isinstance(found, click.Group) and word in found.commands:
                found = found.commands[word]
            elif word.startswith("--"):
                name = word.partition("=")[0].rstrip(",.:")
                known = {one for option in found.params for one in (*option.opts, *option.secondary_opts)}
                assert name in {*known, "--help", "--version"}, f"{' '.join(words)}: {name}"
            elif isinstance(found, click.Group) and re.fullmatch(r"[a-z]+", word):
                pytest.fail(f"{' '.join(words)}: there is no command {word}")


@every
def test_settings_and_variables_are_there(page: Path) -> None:
    """As they are spelled."""
    text = page.read_text()
    for said in _INLINE.findall(text):
        if not said.endswith(_OF_FILES) and "/" not in said and "(" not in said:
            for key in _KEY.findall(said):
                assert key in FIELDS, f"{page.name}: {key}"
    for variable in _VARIABLE.findall(text):
        known = {variable, variable.removesuffix("_FILE")} & {*VARIABLES, *NOT_SETTINGS}
        assert known or variable.endswith("_"), f"{page.name}: {variable}"


@every
def test_links_lead_somewhere(page: Path) -> None:
    """Within the project; what is elsewhere is not asked for."""
    for target in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_site_has_every_page() -> None:
    """And no page that there is not."""
    said = (ROOT / "mkdocs.yml").read_text()
    pages = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load(said)["nav"])))
    assert pages == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
