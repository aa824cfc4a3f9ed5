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

_NGINX = """
worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.log; daemon off;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path {base}/t; proxy_temp_path {base}/t; fastcgi_temp_path {base}/t; uwsgi_temp_path {base}/t;
  scgi_temp_path {base}/t;
  server {{ listen 127.0.0.1:{plain}; root {root}; }}
  server {{ listen 127.0.0.1:{limited}; root {root}; limit_rate {limit}; }}
  ssl_certificate {base}/tls.pem; ssl_certificate_key {base}/tls.key;
  server {{ listen 127.0.0.1:{tls} ssl; root {root}; }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """Where one nginx listens, three ways."""

    plain: str
    limited: str
    tls: str
    process: psutil.Process


@dataclass
class Cost:
    """What a server used between two looks: processor seconds, and the most memory it ever held, in bytes."""

    cpu_s: float
    peak_bytes: int


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def cpu_of(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children()))


def peak_of(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@contextmanager
def _running(command: list[str], port: int, **options: object) -> Iterator[psutil.Process]:
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
def nginx(base: Path, root: Path) -> Iterator[Nginx]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    ports = free_port(), free_port(), free_port()
    make_certificate(base)
    config = base / "nginx.conf"
    config.write_text(_NGINX.format(base=base, root=root, plain=ports[0], limited=ports[1], tls=ports[2], limit=LIMIT))
    with _running([program, "-c", str(config), "-e", str(base / "nginx.log")], ports[0]) as process:
        yield Nginx(
            f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", f"https://localhost:{ports[2]}", process
        )


@contextmanager
def registry(model: Path, blobs_at: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.registry", str(model), blobs_at, str(port)]
    with _running(command, port):
        yield f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Mirror:
    url: str
    process: psutil.Process


@contextmanager
def mirror(store: Path, upstream: str, base: Path) -> Iterator[Mirror]:
    port = free_port()
    command = [sys.executable, "-m", "mirror", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--store", str(store), "--upstream", upstream, "--log-level", "WARNING"]
    environment = {**os.environ, "SSL_CERT_FILE": str(base / "tls.pem")}
    with _running(command, port, env=environment, stdout=subprocess.DEVNULL) as process:
        yield Mirror(f"http://127.0.0.1:{port}", process)


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
