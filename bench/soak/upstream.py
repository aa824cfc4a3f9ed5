"""The registry above the mirror, a program: ``python -m bench.soak.upstream FOLDER``.

It is the fake registry of the tests with the models of FOLDER. The tag ``library/moving:latest`` means in turn what
``:one`` and ``:two`` mean. A line ``down`` or ``up`` on standard input has it listen no more, or again.
"""

import argparse
import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from tests.fakes.registry import FakeRegistry, running_fake_registry

MOVING = "library/moving"
_REMEMBERS = 2000


async def _move(fake: FakeRegistry, every_s: float) -> None:
    versions = [fake.manifest_bytes(f"{MOVING}:{tag}") for tag in ("one", "two")]
    while True:
        for raw in versions:
            fake.add_manifest(f"{MOVING}:latest", raw)
            await asyncio.sleep(every_s)


async def _obey(fake: FakeRegistry) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line == b"down\n":
            await fake.stop_listening()
        elif line == b"up\n":
            await fake.listen()


async def _serve(options: argparse.Namespace) -> None:
    async with running_fake_registry(valid_s=options.valid_s, remembers=_REMEMBERS) as fake:
        fake.add_folder(options.folder)
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(_move(fake, options.moves_s))
            sys.stdout.write(f"{fake.url}\n")
            sys.stdout.flush()
            await _obey(fake)
            moving.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak.upstream", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--valid-s", type=float, default=2.0, help="how long a signed address is good for")
    parser.add_argument("--moves-s", type=float, default=5.0, help="how long the moving tag means the same")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
