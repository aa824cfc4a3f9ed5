"""``python -m bench.soak``: a mirror under everything at once, and at the end a table.

The exit code is 1 when a promise was not kept.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.soak.soak import Plan, soak


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default 30)")
    parser.add_argument("--seed", type=int, help="of all that is left to chance; a new one each time, if not said")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/soak.md has it")
    parser.add_argument(
        "--folder", type=Path, help="where store and logs lie meanwhile (default: the temporary folder)"
    )
    parser.add_argument("--keep", action="store_true", help="leave store and logs where they are")
    return parser.parse_args()


def main() -> None:
    options = _options()
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    watching = Console(stderr=True)
    base = Path(tempfile.mkdtemp(prefix="mirror-soak-", dir=options.folder))
    watching.print(f"soaking for {options.minutes:g} minutes, seed {seed}, in {base}")

    def say(sentence: str) -> None:
        watching.print(f"{time.strftime('%H:%M:%S')} {sentence}", markup=False, highlight=False, soft_wrap=True)

    report = asyncio.run(soak(base, Plan.of(options.minutes), seed, say))
    if options.json:
        sys.stdout.write(report.json() + "\n")
    elif options.markdown:
        sys.stdout.write(report.markdown() + "\n")
        report.show(watching)
    else:
        report.show(Console())
    if report.problems or options.keep:
        watching.print(f"store and logs are in {base}")
    else:
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
