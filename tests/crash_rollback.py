"""A program that puts a tag back, to be killed on the way: ``python -m tests.crash_rollback FOLDER POINT TIMES``.

It dies as it passes the fault point for the n-th time since the rollback began; else it prints that it came to its end.
"""

import asyncio
import sys
from pathlib import Path

from mirror import faultpoints
from mirror.app import opened_parts
from tests.support import MODEL, settings


async def main(folder: Path, point: str, times: int) -> None:
    """Go back, offline: every blob is here."""
    async with opened_parts(settings(folder, "http://127.0.0.1:9", offline=True), holder="a test") as parts:
        faultpoints.arm(point, times)
        await parts.rollback.back(MODEL, parts.rollback.find(MODEL))
        sys.stdout.write("the end\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
