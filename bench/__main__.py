"""``python -m bench``: every scenario, all peers in turn, several rounds; medians and ratios."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench import api, growth
from bench.figures import tables
from bench.plot import plot
from bench.servers import files, make_certificate
from bench.transfers import NAME, Transfers
from mirror.demo.model import write_model

GROUPS = ("hits", "misses", "tls", "manifests")
_APART = {"growth": growth.measure, "api": api.measure}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--size", type=float, default=2e9, help="bytes of the blob (default 2e9)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=(*GROUPS, *_APART), action="append", help="a group of scenarios")
    parser.add_argument("--folder", default="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--out", type=Path, help="write the tables to this file too")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--plot", type=Path, help="write a picture of the ratios to this file, an SVG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=options.folder) as made:
        base = Path(made)
        apart = [one for one in options.only or () if one in _APART]
        said = [_APART[one](base, options.rounds) for one in apart]
        groups = [one for one in GROUPS if options.only is None or one in options.only]
        if groups:
            said.append(_transfers(base, groups, options))
    print("\n" + "\n\n".join(said))
    if options.out:
        options.out.write_text("\n\n".join(said) + "\n")


def _transfers(base: Path, groups: list[str], options: argparse.Namespace) -> str:
    for program in ("nginx", "wrk"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            sys.exit(f"the bench needs {program}; as root, make bench installs it")
    print(f"making a blob of {options.size / 1e9:g} GB", flush=True)
    model = write_model(base / "model", size=int(options.size), name=NAME)
    make_certificate(base)
    for path in (base, *base.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with files(base, model.folder) as above, Transfers(base, model, above) as bench:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            bench.round(groups)
    if options.json:
        options.json.write_text(json.dumps(bench.figures.as_json(), indent=1) + "\n")
    if options.plot:
        plot(bench.figures, options.plot)
    return tables(bench.figures)


if __name__ == "__main__":
    main()
