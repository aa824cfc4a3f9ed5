"""Bytes from a mirror to its clients: hits, misses, TLS and manifests, of ours and of what people would use instead."""

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import Better, Figures, Sample, Scenario
from bench.servers import (
    Files,
    cpu_of,
    docker_registry,
    mirror,
    peak_of,
    registry,
    reset_peak,
    slices,
)
from mirror.demo.model import DemoModel

NAME = "library/bench"
STATIC, SLICES, REGISTRY, OURS, MORE = "nginx", "nginx proxy_cache", "docker-registry", "mirror", "mirror, 2 workers"
STRAIGHT = "straight"
PLAIN, TLS, POINTED = "plain", "TLS", "TLS, bytes plain"


@dataclass(frozen=True)
class Reading:
    """How clients read the blob: so many machines at once, each in so many ranges; ``follow`` as Ollama begins."""

    machines: int = 1
    parts: int = 1
    follow: bool = False


@dataclass(frozen=True)
class Warm:
    """A peer that has the model already."""

    blob: str
    process: psutil.Process
    manifest: str = ""


class Transfers:
    """The servers that stand all the time, and what was measured so far."""

    def __init__(self, base: Path, model: DemoModel, above: Files) -> None:
        self.figures = Figures()
        self._base = base
        self._model = model
        self._above = above
        self._blob = model.blobs[0]
        self._round = 0
        self._stores = 0
        self._stack = ExitStack()

    def __enter__(self) -> "Transfers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self, groups: list[str]) -> None:
        """Measure everything in these groups once; who comes first changes from round to round."""
        for group in groups:
            {"hits": self._hits, "misses": self._misses, "tls": self._tls, "manifests": self._manifests}[group]()
        self._round += 1

    # What is warm, made when first asked for.

    def _warm(self) -> Mapping[str, Warm]:
        if not hasattr(self, "_warmed"):
            at = self._above.hits
            self._warmed = {STATIC: Warm(self._file_at(at), self._above.process, f"{at}/manifests/{NAME}/latest")}
            for name in (SLICES, REGISTRY, OURS, MORE):
                if (made := self._cold(name, self._above.plain)) is not None:
                    warm = self._stack.enter_context(made)
                    self._read(warm.blob, Reading())
                    self._warmed[name] = warm
        return self._warmed

    def _hits(self) -> None:
        for title, reading in (
            ("hit, 1 stream", Reading()),
            ("hit, 16 ranges", Reading(parts=16)),
            ("hit, 8 machines x 16", Reading(machines=8, parts=16)),
        ):
            scenario = Scenario(title, STATIC, Better.SPEED)
            for name, warm in self._turned(self._warm()):
                self._note(scenario, name, warm, reading)

    def _tls(self) -> None:
        """Bytes by TLS, straight and by being pointed to the plain address, of the same mirror's plain way."""
        if not hasattr(self, "_ways"):
            self._ways = self._stack.enter_context(self._with_tls())
        scenario = Scenario("hit by TLS, 16 ranges", PLAIN, Better.SPEED)
        for name, warm in self._turned(self._ways):
            self._note(scenario, name, warm, Reading(parts=16, follow=True))

    def _misses(self) -> None:
        limited = "100 MB/s a connection"
        for title, above, reading in (
            (f"miss, 1 stream, {limited}", self._above.limited, Reading()),
            (f"miss, 16 ranges, {limited}", self._above.limited, Reading(parts=16)),
            ("miss, 1 stream", self._above.plain, Reading()),
            ("miss, 16 ranges", self._above.plain, Reading(parts=16)),
            ("miss, 16 ranges, upstream by TLS", self._above.tls, Reading(parts=16)),
            ("miss, 8 machines x 16", self._above.plain, Reading(machines=8, parts=16)),
        ):
            scenario = Scenario(title, STRAIGHT, Better.TIME)
            for name, _ in self._turned(dict.fromkeys((STRAIGHT, SLICES, REGISTRY, OURS))):
                self._miss(scenario, name, above, reading)

    def _miss(self, scenario: Scenario, name: str, above: str, reading: Reading) -> None:
        if name == STRAIGHT:
            seconds = self._read(self._file_at(above), reading)
            self._said(scenario, name, Sample(seconds) if seconds else None)
        elif (made := self._cold(name, above)) is not None:
            before = self._above.sent()
            with made as cold:
                self._note(scenario, name, cold, reading, lambda: self._above.sent() - before)

    def _manifests(self) -> None:
        scenario = Scenario("manifests a second, 64 connections", STATIC, Better.SPEED)
        for name, warm in self._turned({name: one for name, one in self._warm().items() if one.manifest}):
            wrk = ["wrk", "-t2", "-c64", "-d3s", warm.manifest]
            said = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
            rate = next(float(line.split()[1]) for line in said.splitlines() if "Requests/sec" in line)
            self._said(scenario, name, Sample(rate) if "Non-2xx" not in said else None)

    # Peers.

    def _cold(self, name: str, above: str) -> AbstractContextManager[Warm] | None:
        """Return a peer with nothing in it below what is ``above``; None where the program is not there."""
        if name == REGISTRY and shutil.which("docker-registry") is None:
            return None
        return self._emptied(name, above)

    @contextmanager
    def _emptied(self, name: str, above: str) -> Iterator[Warm]:
        self._stores += 1
        store = self._base / f"store{self._stores}"
        with ExitStack() as stack:
            stack.callback(self._removed, store)
            if name == SLICES:  # which follows no redirect: it is told where the files are
                peer = stack.enter_context(slices(store, above))
                yield Warm(self._file_at(peer.url), peer.process, f"{peer.url}/manifests/{NAME}/latest")
                return
            hub = stack.enter_context(registry(self._model.folder, above))
            if name == REGISTRY:
                peer = stack.enter_context(docker_registry(store, hub))
            else:
                workers = "3" if name == MORE else "1"
                peer = stack.enter_context(mirror(store, hub, self._base / "tls.pem", WORKERS=workers))
            manifest = f"{peer.url}/v2/{NAME}/manifests/latest"
            with_manifest = _asked(manifest)
            reset_peak(peer.process)
            yield Warm(self._blob_at(peer.url), peer.process, manifest if with_manifest else "")

    @contextmanager
    def _with_tls(self) -> Iterator[Mapping[str, Warm]]:
        """Two mirrors with certificates, one of which points to a plain address; the first by its plain way too."""
        certificate = {"LISTEN_CERTIFICATE": str(self._base / "tls.pem"), "LISTEN_KEY": str(self._base / "tls.key")}
        ways = {}
        with ExitStack() as stack:
            hub = stack.enter_context(registry(self._model.folder, self._above.plain))
            for name, more in ((TLS, {}), (POINTED, {"LISTEN_DATA": "127.0.0.1:0"})):
                self._stores += 1
                store = self._base / f"store{self._stores}"
                stack.callback(self._removed, store)
                made = mirror(store, hub, self._base / "tls.pem", **certificate, **more)
                peer = stack.enter_context(made)
                _asked(f"{peer.url}/v2/{NAME}/manifests/latest")
                self._read(self._blob_at(peer.url), Reading(follow=True))
                secret = peer.url.replace("http://127.0.0.1", "https://localhost")
                ways[name] = Warm(self._blob_at(secret), peer.process)
                if name == TLS:
                    ways[PLAIN] = Warm(self._blob_at(peer.url), peer.process)
            yield ways

    def _removed(self, store: Path) -> None:
        for folder in (store, store.with_name(store.name + ".state")):
            shutil.rmtree(folder, ignore_errors=True)

    # Measuring.

    def _turned(self, peers: Mapping[str, Warm]) -> list[tuple[str, Warm]]:
        order = list(peers.items())
        at = self._round % len(order)
        return order[at:] + order[:at]

    def _note(
        self, scenario: Scenario, name: str, peer: Warm, reading: Reading, sent: Callable[[], int] | None = None
    ) -> None:
        reset_peak(peer.process)
        before = cpu_of(peer.process)
        seconds = self._read(peer.blob, reading)
        if seconds is None:
            self._said(scenario, name, None)
            return
        gigabytes = reading.machines * self._blob.size / 1e9
        sample = Sample(seconds, (cpu_of(peer.process) - before) / gigabytes, peak_of(peer.process) / 1e6)
        if sent is not None:
            sample.upstream = sent() / self._blob.size
        self._said(scenario, name, sample)

    def _said(self, scenario: Scenario, name: str, sample: Sample | None) -> None:
        amount = "could not" if sample is None else f"{sample.amount:9.2f}"
        print(f"  {scenario.title:44s} {name:20s} {amount}", flush=True)
        self.figures.add(scenario, name, sample)

    def _read(self, url: str, reading: Reading) -> float | None:
        """Have the machines read the blob at once; return the time of the slowest, None where one got it wrong."""
        command = [sys.executable, "-m", "bench.load", url, str(self._blob.size), str(reading.parts)]
        command += ["follow"] if reading.follow else []
        machines = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(reading.machines)
        ]
        for one in machines:
            assert one.stdout is not None
            one.stdout.readline()  # it is ready
        for one in machines:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.communicate(timeout=600) for one in machines]
        if any(one.returncode for one in machines):
            print(f"    {said[0][1].strip()[:200]}", flush=True)
            return None
        return max(float(out.split()[0]) for out, _ in said)

    def _blob_at(self, server: str) -> str:
        return f"{server}/v2/{NAME}/blobs/{self._blob.digest}"

    def _file_at(self, server: str) -> str:
        return f"{server}/blobs/{self._blob.digest.filename}"


def _asked(manifest: str) -> bool:
    """Ask for the manifest, as every pull begins; return whether there is one."""
    try:
        with urllib.request.urlopen(manifest, timeout=30) as answer:
            return bool(answer.read())
    except urllib.error.HTTPError:
        return False
