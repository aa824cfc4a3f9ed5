"""The wheel: what has to be in it, and that a mirror installed from it serves its pages."""

import asyncio
import sys
import venv
import zipfile
from pathlib import Path

import aiohttp
import pytest

from tests.process import run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this tree, by the tools that are installed."""
    into = tmp_path_factory.mktemp("wheel")
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(into), str(ROOT))
    made = asyncio.run(run(sys.executable, *build))
    assert made.code == 0, made.err
    return next(into.glob("*.whl"))


def test_nothing_is_left_out(wheel: Path) -> None:
    """Pages, styles, migrations, units: every file of the package, and what is shipped beside it."""
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    ours = [one for one in (ROOT / "mirror").rglob("*") if one.is_file() and "__pycache__" not in one.parts]
    assert {str(one.relative_to(ROOT)) for one in ours} <= names
    beside = {name.partition(".data/data/share/mirror/")[2] for name in names if ".data/data/" in name}
    assert {"config.yaml", "systemd/mirror.service", "systemd/mirror-node.service", "grafana/mirror.json"} <= beside
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]


@pytest.mark.timeout(120)
async def test_a_mirror_installed_from_it_serves_its_pages(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees the libraries of this one and nothing of this tree."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    libraries = next(Path(one) for one in sys.path if one.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"{libraries}\n")
    there = ("--python", str(home / "bin/python"))
    install = ("install", "--quiet", "--no-deps", "--no-index", "--force-reinstall")
    made = await run(sys.executable, "-m", "pip", *there, *install, str(wheel))
    assert made.code == 0, made.err
    program = str(home / "bin" / "mirror")
    where = await run(str(home / "bin/python"), "-c", "import mirror; print(mirror.__file__)", cwd=tmp_path)
    assert str(site) in where.out
    process = await asyncio.create_subprocess_exec(
        program, "serve", "--port", "0", "--host", "127.0.0.1", "--store", str(tmp_path / "store"), "--offline",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        async with aiohttp.ClientSession(headers={"Accept": "text/html"}) as session:
            for path in (
                "/",
                "/mirror/models",
                "/mirror/setup",
                "/mirror/static/mirror.css",
                "/mirror/v1/openapi.json",
            ):
                async with session.get(url + path) as answer:
                    assert answer.status == 200, path
    finally:
        process.terminate()
        await process.wait()
