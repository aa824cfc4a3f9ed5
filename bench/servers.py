"""The servers of a bench: nginx, a registry that redirects to it, and the mirror, each a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

LIMIT = 100_000_000
"""Bytes per second that the limited upstream gives one connection."""

_HTTP = """
worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.log; daemon off;
events {{ worker_connections 4096; }}
http {{
  log_format bytes "$body_bytes_sent";
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path {base}/t; proxy_temp_path {base}/t; fastcgi_temp_path {base}/t; uwsgi_temp_path {base}/t;
  scgi_temp_path {base}/t;
  {servers}
}}
"""

_FILES = """
  ssl_certificate {above}/tls.pem; ssl_certificate_key {above}/tls.key;
  server {{ listen 127.0.0.1:{hits}; listen 127.0.0.1:{hits_tls} ssl; root {root}; }}
  server {{ listen 127.0.0.1:{plain}; root {root}; access_log {base}/sent bytes; }}
  server {{ listen 127.0.0.1:{limited}; root {root}; access_log {base}/sent bytes; limit_rate {limit}; }}
  server {{ listen 127.0.0.1:{tls} ssl; root {root}; access_log {base}/sent bytes; }}
"""

_SLICES = """
  proxy_cache_path {base}/cache levels=1:2 keys_zone=blobs:50m max_size=1000g inactive=1d use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      slice 8m; proxy_cache blobs; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache_valid 200 206 1d; proxy_cache_lock on;
      proxy_ssl_server_name on; proxy_pass {above};
    }}
  }}
"""

_REGISTRY = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {base}}}}}
http: {{addr: "127.0.0.1:{port}"}}
proxy: {{remoteurl: "{above}"}}
"""


@dataclass(frozen=True)
class Files:
    """One nginx with the model's files: for hits, and thrice as what is above a mirror, where it counts its bytes."""

    hits: str
    hits_tls: str
    plain: str
    limited: str
    tls: str
    process: psutil.Process
    log: Path

    def sent(self) -> int:
        """Return the bytes of bodies that went out as an upstream's so far."""
        return sum(int(line) for line in self.log.read_text().split()) if self.log.exists() else 0


@dataclass(frozen=True)
class Peer:
    """A server that stands between clients and an upstream, as a process."""

    url: str
    process: psutil.Process


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def cpu_of(process: psutil.Process) -> float:
    """Return the processor seconds of a process and its children."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children()))


def peak_of(process: psutil.Process) -> int:
    """Return the most memory in bytes that a process and its children held, each at its own time."""
    return sum(_peak(one.pid) for one in (process, *process.children()))


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak(process: psutil.Process) -> None:
    for one in (process, *process.children()):
        Path(f"/proc/{one.pid}/clear_refs").write_text("5")


@contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{command[0]} did not start")
                time.sleep(0.02)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextmanager
def _nginx(base: Path, servers: str, port: int) -> Iterator[psutil.Process]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    config = base / "nginx.conf"
    config.write_text(_HTTP.format(base=base, servers=servers))
    with running([program, "-c", str(config), "-e", str(base / "nginx.log")], port) as process:
        yield process


@contextmanager
def files(base: Path, root: Path) -> Iterator[Files]:
    """Run an nginx with the files below ``root``; ``base`` has a certificate and is everybody's to enter."""
    below = base / "files"
    below.mkdir()
    below.chmod(0o777)
    names = ("hits", "hits_tls", "plain", "limited", "tls")
    ports = {name: free_port() for name in names}
    servers = _FILES.format(base=below, above=base, root=root, limit=LIMIT, **ports)
    with _nginx(below, servers, ports["hits"]) as process:
        urls = {n: f"{'https://localhost' if 'tls' in n else 'http://127.0.0.1'}:{ports[n]}" for n in names}
        yield Files(**urls, process=process, log=below / "sent")


@contextmanager
def slices(base: Path, above: str) -> Iterator[Peer]:
    """Run an nginx that keeps slices of what it is asked for."""
    base.mkdir()
    base.chmod(0o777)
    port = free_port()
    with _nginx(base, _SLICES.format(base=base, port=port, above=above), port) as process:
        yield Peer(f"http://127.0.0.1:{port}", process)


@contextmanager
def docker_registry(base: Path, above: str) -> Iterator[Peer]:
    """Run Debian's docker-registry as a pull-through cache."""
    base.mkdir()
    port = free_port()
    config = base / "config.yml"
    config.write_text(_REGISTRY.format(base=base, port=port, above=above))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running(["docker-registry", "serve", str(config)], port, **quiet) as process:
        yield Peer(f"http://127.0.0.1:{port}", process)


@contextmanager
def registry(model: Path, blobs_at: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.registry", str(model), blobs_at, str(port)]
    with running(command, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def mirror(base: Path, above: str, trusted: Path, *arguments: str, **settings: str) -> Iterator[Peer]:
    """Run the mirror with the store ``base``; ``settings`` are variables without their beginning."""
    port = free_port()
    command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--store", str(base), "--upstream", above, "--log-level", "WARNING", *arguments]
    said = {f"OLLAMA_MIRROR_{key}": value for key, value in settings.items()}
    environment = {**os.environ, "SSL_CERT_FILE": str(trusted), **said}
    with running(command, port, env=environment, stdout=subprocess.DEVNULL) as process:
        yield Peer(f"http://127.0.0.1:{port}", process)


def make_certificate(base: Path) -> None:
    """A certificate for localhost that signs itself, which the mirror is told to trust."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (base / "tls.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (base / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
