"""``python -m bench``: every scenario, all peers in turn, several rounds; medians and ratios."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import api, growth
from bench.servers import Mirror, Nginx, cpu_of, mirror, nginx, peak_of, registry, reset_peak
from mirror.demo.model import DemoModel, write_model

NAME = "library/bench"


@dataclass
class Figures:
    """What was measured of one scenario and peer, over the rounds."""

    seconds: list[float] = field(default_factory=list)
    cpu_per_gb: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    upstream: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


class Bench:
    """The servers that stand all the time, the model, and what was measured so far."""

    def __init__(self, base: Path, model: DemoModel, files: Nginx) -> None:
        self.base = base
        self.model = model
        self.files = files
        self.blob = model.blobs[0]
        self.figures: dict[tuple[str, str], Figures] = defaultdict(Figures)
        self._stores = 0

    def read(self, urls: list[str], parts: int) -> float:
        """Let as many machines as there are ``urls`` read the blob at once; return the time of the slowest."""
        command = [sys.executable, "-m", "bench.load"]
        machines = [
            subprocess.Popen(
                [*command, url, str(self.blob.size), str(parts)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for url in urls
        ]
        for one in machines:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        times = [float(one.communicate(timeout=600)[0].split()[0]) for one in machines]
        if any(one.returncode for one in machines):
            sys.exit("a client did not get what it asked for")
        return max(times)

    def note(self, scenario: str, peer: str, url: str, machines: int, parts: int, server: object = None) -> None:
        """Measure one reading and keep the figures."""
        figures = self.figures[scenario, peer]
        process = getattr(server, "process", None)
        before = cpu_of(process) if process else 0.0
        seconds = self.read([url] * machines, parts)
        figures.seconds.append(seconds)
        print(f"  {scenario:44s} {peer:10s} {seconds:7.2f} s", flush=True)
        if process:
            figures.cpu_per_gb.append((cpu_of(process) - before) / (machines * self.blob.size / 1e9))
            figures.peak_mb.append(peak_of(process) / 1e6)

    @contextmanager
    def cold(self, blobs_at: str) -> Iterator[Mirror]:
        """A mirror with an empty store in front of a registry whose blobs are at ``blobs_at``."""
        self._stores += 1
        store = self.base / f"store{self._stores}"
        with registry(self.model.folder, blobs_at) as above, mirror(store, above, self.base) as one:
            urllib.request.urlopen(f"{one.url}/v2/{NAME}/manifests/latest").read()
            reset_peak(one.process)
            yield one
        for folder in (store, store.with_name(store.name + ".state")):
            shutil.rmtree(folder, ignore_errors=True)

    def blob_at(self, server: str) -> str:
        return f"{server}/v2/{NAME}/blobs/{self.blob.digest}"

    def file_at(self, server: str) -> str:
        return f"{server}/blobs/{self.blob.digest.filename}"

    def hits(self, warm: Mirror) -> None:
        for title, machines, parts in (("1 stream", 1, 1), ("16 ranges", 1, 16), ("8 machines x 16", 8, 16)):
            for peer, url, server in (
                ("nginx", self.file_at(self.files.plain), self.files),
                ("mirror", self.blob_at(warm.url), warm),
            ):
                if server is warm:
                    reset_peak(warm.process)
                self.note(f"hit, {title}", peer, url, machines, parts, server)

    def misses(self) -> None:
        for title, at, machines, parts in (
            ("miss, 1 stream, 100 MB/s a connection", self.files.limited, 1, 1),
            ("miss, 16 ranges, 100 MB/s a connection", self.files.limited, 1, 16),
            ("miss, 1 stream", self.files.plain, 1, 1),
            ("miss, 16 ranges", self.files.plain, 1, 16),
            ("miss, 16 ranges, upstream over TLS", self.files.tls, 1, 16),
            ("miss, 8 machines x 16", self.files.plain, 8, 16),
        ):
            self.note(title, "upstream", self.file_at(at), machines, parts)
            with self.cold(at) as one:
                self.note(title, "mirror", self.blob_at(one.url), machines, parts, one)
                stats = json.load(urllib.request.urlopen(f"{one.url}/mirror/stats"))
                self.figures[title, "mirror"].upstream.append(stats["bytes_fetched"] / self.blob.size)

    def manifests(self, warm: Mirror) -> None:
        for peer, url in (
            ("nginx", f"{self.files.plain}/manifests/{NAME}/latest"),
            ("mirror", f"{warm.url}/v2/{NAME}/manifests/latest"),
        ):
            wrk = subprocess.run(["wrk", "-t2", "-c64", "-d3s", url], capture_output=True, text=True, check=True)
            rate = next(float(line.split()[1]) for line in wrk.stdout.splitlines() if "Requests/sec" in line)
            print(f"  {'manifests, 64 connections':44s} {peer:10s} {rate:7.0f} requests/s", flush=True)
            self.figures["manifests, 64 connections", peer].rate.append(rate)


def table(figures: dict[tuple[str, str], Figures], size: int) -> str:
    """The medians as a table; a ratio is to the peer in the same rounds."""
    lines = [
        "| scenario | peer | ours / peer | spread | CPU s/GB (nginx) | peak MB | upstream bytes |",
        "|---|---|---|---|---|---|---|",
    ]

    def median(values: list[float], form: str = "{:.2f}") -> str:
        return form.format(statistics.median(values)) if values else "-"

    for (scenario, who), ours in figures.items():
        if who != "mirror":
            continue
        peer = next(name for title, name in figures if title == scenario and name != "mirror")
        other = figures[scenario, peer]
        if ours.rate:
            ratios = [mine / theirs for mine, theirs in zip(ours.rate, other.rate, strict=True)]
            said = f"{median(ours.rate, '{:.0f}')} / {median(other.rate, '{:.0f}')} per s = {median(ratios)}"
        elif scenario.startswith("hit"):
            ratios = [theirs / mine for mine, theirs in zip(ours.seconds, other.seconds, strict=True)]
            said = f"{median(ratios)} of its speed"
        else:
            ratios = [mine / theirs for mine, theirs in zip(ours.seconds, other.seconds, strict=True)]
            said = f"{median(ratios)} of its time"
        cpu = median(ours.cpu_per_gb) + (f" ({median(other.cpu_per_gb)})" if other.cpu_per_gb else "")
        lines.append(
            f"| {scenario} | {peer} | {said} | {min(ratios):.2f} to {max(ratios):.2f} | {cpu} "
            f"| {median(ours.peak_mb, '{:.0f}')} | {median(ours.upstream, '{:.3f}')} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--size", type=float, default=2e9, help="bytes of the blob (default 2e9)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", choices=("hits", "misses", "manifests", "growth", "api"), help="one group of scenarios"
    )
    parser.add_argument("--folder", default="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    if options.only == "growth":
        with tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=options.folder) as base:
            _say(growth.measure(Path(base), options.rounds), options.out)
        return
    if options.only == "api":
        with tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=options.folder) as base:
            _say(api.measure(Path(base), options.rounds), options.out)
        return
    for program in ("nginx", "wrk"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            sys.exit(f"the bench needs {program}; as root, make bench installs it")
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mirror-bench-", dir=options.folder)))
        print(f"making a blob of {options.size / 1e9:g} GB", flush=True)
        model = write_model(base / "model", size=int(options.size), name=NAME)
        for path in (base, *base.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        files = stack.enter_context(nginx(base, model.folder))
        bench = Bench(base, model, files)
        scenarios: dict[str, Callable[[], None]] = {"misses": bench.misses}
        if options.only != "misses":
            warm = stack.enter_context(bench.cold(files.plain))
            bench.read([bench.blob_at(warm.url)], 16)
            scenarios = {"hits": lambda: bench.hits(warm), **scenarios, "manifests": lambda: bench.manifests(warm)}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            for title, group in scenarios.items():
                if options.only in (None, title):
                    group()
        _say(table(bench.figures, bench.blob.size), options.out)


def _say(said: str, out: Path | None) -> None:
    print(f"\n{said}")
    if out:
        out.write_text(said + "\n")


if __name__ == "__main__":
    main()
