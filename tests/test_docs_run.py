"""The commands of the documents do what somebody who copies them wants: they are run, in the order of their page."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from mirror.demo.model import MODEL_TYPE
from tests.behind import closed
from tests.fakes.ollama import FakeOllama, running_fake_ollama
from tests.fakes.registry import FakeRegistry, running_fake_registry
from tests.process import serving
from tests.support import noise
from tests.test_docs import DOCS, ROOT

pytestmark = pytest.mark.timeout(240)  # a page has up to twenty commands, each a program of its own
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LONGEST_S = 40
NOT_HERE = {
    r"make ": "it is what runs these tests, or runs for minutes",
    r"ollama |OLLAMA_HOST=": "no Ollama is installed here; tests/fakes speaks for it",
    r"(sudo )?(systemctl|contrib/install\.sh|tee|mkdir|mv|tar) |git clone": "it changes the machine: test_install.py",
    r"\[Service\]|Environment=|END": "the text of a file",
    r"docker ": "no image can be fetched; see scripts/image",
    r"([A-Z_]+=\S+ )*mirror (serve|node|top)\b": "it runs until it is ended; see test_tui_tmux.py, test_node_agent.py",
    r"mirror bench dispatch": "it measures for a while; see test_turns_commands.py",
    r"\.venv/bin/python -m bench": "it measures for minutes; see test_soak.py",
}
"""How lines begin that are not run, and why; everything else has to be."""


def lines_of(page: Path) -> Iterator[str]:
    """The lines of a page's blocks for a shell."""
    for block in _FENCE.findall(page.read_text()):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


def is_run(line: str) -> bool:
    """Whether a line is one of those that can be run here."""
    return not any(re.match(begin, line) for begin in NOT_HERE)


PAGES = [page for page in DOCS if any(is_run(line) for line in lines_of(page))]


@dataclass
class Place:
    """Where a page's commands are run: a mirror with two models, an Ollama behind it, and a folder."""

    folder: Path
    url: str
    registry: FakeRegistry
    ollama: FakeOllama
    ids: list[str] = field(default_factory=list)

    async def right(self, line: str) -> None:
        """Run one line as a shell does, which has to end well; somebody says yes to what it asks."""
        environment = {**os.environ, **self._settings(), "HOME": str(self.folder)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", self._here(line)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=self.folder,
        )
        async with asyncio.timeout(_LONGEST_S):
            out, _ = await process.communicate(b"y\n")
        said = out.decode()
        self.ids += re.findall(r'"id": "([0-9a-f-]{36})"', said)
        assert process.returncode == 0, f"{line}\n{said}"
        assert "Traceback" not in said, line

    def _settings(self) -> dict[str, str]:
        return {"OLLAMA_MIRROR_CACHE_DIR": str(self.folder / "store"), "OLLAMA_MIRROR_UPSTREAM_URL": self.registry.url}

    def _here(self, line: str) -> str:
        here = URL(self.url).authority
        line = re.sub(r"\b(MIRROR|HUB):11434", here, line).replace("gpu1:11434", URL(self.ollama.url).authority)
        if line.startswith("curl -N"):  # which is read until one has enough
            line = f"timeout 2 {line} || [ $? = 124 ]"
        return re.sub(r"/ID\b", f"/{self.ids[-1]}", line) if self.ids else line


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """Make it."""
    async with running_fake_registry() as registry, running_fake_ollama(folder / "ollama") as ollama:
        for number, name in enumerate(("library/llama3.2:latest", "library/qwen3:8b", "library/qwen3:latest")):
            config = b'{"model_format":"gguf","number":%d}' % number  # of its own: they are delivered at the same time
            registry.add_model(name, {MODEL_TYPE: noise(50_000, number)}, config)
        for name in ("llama3", "llama3.2"):
            ollama.folder.add(name)
        (window,) = closed()["pulls__windows"]
        env = {
            "OLLAMA_MIRROR_PROXY_BACKEND": ollama.url,
            "OLLAMA_MIRROR_HUB_ENABLED": "true",
            "OLLAMA_MODEL": "llama3.2",
            "OLLAMA_MIRROR_PULLS_WINDOWS": window,
        }
        async with serving(folder / "store", registry.url, env=env) as (url, _):
            one = Place(folder, url, registry, ollama)
            await one.right("mirror prefetch llama3.2 qwen3:8b qwen3")
            yield one


async def _prepared(one: Place, line: str) -> None:
    """Have there what a line takes for given."""
    if "id_ed25519.pub" in line:
        key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (one.folder / "id_ed25519.pub").write_bytes(key + b" ann@laptop\n")
    elif "november.tar" in line:
        await one.right("mirror export qwen3 -o november.tar")
    elif "~/.ollama/models" in line:
        shutil.copytree(one.folder / "store", one.folder / ".ollama" / "models")
    elif "rollback" in line and "--list" not in line:
        await one.right("mirror prefetch llama3.2")
        one.registry.add_model("library/llama3.2:latest", {MODEL_TYPE: noise(50_000, 99)})
        await one.right("mirror update llama3.2")
    elif "mirror pulls now" in line or "mirror pulls move" in line:
        await one.right("mirror pulls add llama3.2 qwen3:8b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    """Each ends well, in the order in which they stand there."""
    async with place(tmp_path) as one:
        for line in lines_of(page):
            if is_run(line):
                await _prepared(one, line)
                await one.right(line)


def test_what_is_not_run_is_still_somewhere() -> None:
    """A reason that no line has any more is to be taken out."""
    lines = [line for page in DOCS for line in lines_of(page)]
    assert [begin for begin in NOT_HERE if not any(re.match(begin, line) for line in lines)] == []
