"""What stands between a mirror and its upstream: a proxy, TLS, and servers that answer with whatever bytes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from yarl import URL

Serve = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
    """Run ``serve`` with the head of each connection's first request; yields the port."""

    running: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        running[task] = writer
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await serve(await reader.readuntil(b"\r\n\r\n"), reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            del running[task]

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in running.values():
            writer.transport.abort()
        if left := [task for task in running if task is not None]:
            await asyncio.wait(left)


@asynccontextmanager
async def answering(*answers: bytes, port: int = 0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Give these answers, the last one again and again, each on a connection of its own; yields URL and heads seen."""
    heads: list[bytes] = []

    async def serve(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answers[min(len(heads), len(answers)) - 1])
        await writer.drain()

    async with listening(serve, port=port) as here:
        yield f"http://127.0.0.1:{here}", heads


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy for plain requests and tunnels, which all lead to this machine; yields its URL and the heads seen."""
    heads: list[bytes] = []

    async def serve(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        method, target, _ = head.split(b" ", 2)
        url = URL(target.decode() if method != b"CONNECT" else f"https://{target.decode()}", encoded=True)
        there = await asyncio.open_connection("127.0.0.1", url.port)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            there[1].write(
                head.replace(target, url.raw_path_qs.encode(), 1).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, there[1]))
            group.create_task(_pipe(there[0], writer))

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}", heads


@asynccontextmanager
async def tls_front(url: str, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """Take TLS connections for the server at ``url``; yields the https URL, whose host is localhost."""

    async def serve(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", URL(url).port)
        there[1].write(head)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, there[1]))
            group.create_task(_pipe(there[0], writer))

    async with listening(serve, tls) as port:
        yield f"https://localhost:{port}"


@asynccontextmanager
async def narrow_front(port: int, passed: int) -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """Take connections for ``port`` and hold each after so many bytes of answers, wherever in a record that is.

    Yields the port, what is set once one is held, and what lets all go on.
    """
    held, on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, there[1]))
            left = passed
            while left and (chunk := await there[0].read(left)):
                writer.write(chunk)
                left -= len(chunk)
            held.set()
            await on.wait()
            group.create_task(_pipe(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1], held, on


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def certificates(folder: Path, *, named: bool = True) -> tuple[Path, ssl.SSLContext]:
    """Make a CA and a certificate of it for localhost; return the CA's file and what a server needs.

    They name their keys, as Python's own clients want it from 3.13 on (RFC 5280 §4.2.1.1), unless ``named`` is false.
    """
    now = datetime.now(UTC)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("test CA", ca_key, "test CA").add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    leaf = certificate("localhost", key, "test CA").add_extension(names, False)
    if named:
        ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        ca = ca.add_extension(_SIGNS, True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        leaf = leaf.add_extension(issuer, False)
    ca_file, chain = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(private + leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return ca_file, context


def free_port() -> int:
    """A port that the system had to give a moment ago, for what must know its port before it listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
