"""One client machine: reads a blob in ranges, each on a connection of its own, and throws the bytes away.

``python -m bench.load URL SIZE PARTS [follow]`` says that it is ready, waits for a line on standard input, reads, and
prints the seconds it took. One part is asked for without a range. With ``follow`` it begins as Ollama does, by asking
for all and going where a redirect leads.
"""

import socket
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

_BUFFER = 1 << 20
_LARGEST_HEAD = 65_536


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    connection = socket.create_connection((parts.hostname or "", parts.port or default), 120)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(connection, server_hostname=parts.hostname)
    return connection


def _ask(connection: socket.socket, url: str, span: str) -> tuple[str, bytes]:
    """Ask for a range, or for all; return the head of the answer, and what of its body came with it."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    wanted = f"Range: bytes={span}\r\n" if span else ""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{wanted}Connection: close\r\n\r\n".encode())
    got = b""
    while b"\r\n\r\n" not in got and len(got) < _LARGEST_HEAD:
        chunk = connection.recv(4096)
        if not chunk:
            break
        got += chunk
    head, _, body = got.partition(b"\r\n\r\n")
    return head.decode("latin-1"), body


def _read(url: str, start: int, stop: int, whole: bool, errors: list[str]) -> None:
    try:
        with _connect(url) as connection:
            head, body = _ask(connection, url, "" if whole else f"{start}-{stop - 1}")
            buffer, left = memoryview(bytearray(_BUFFER)), stop - start - len(body)
            right = f" {200 if whole else 206} " in head[:20]
            while right and left > 0 and (count := connection.recv_into(buffer)):
                left -= count
            if not right or left:
                errors.append(f"{head[:40]!r}, {left} bytes short")
    except OSError as error:
        errors.append(str(error))


def _followed(url: str) -> str:
    with _connect(url) as connection:
        head, _ = _ask(connection, url, "")
    lines = (line.partition(":") for line in head.splitlines())
    there = next((value.strip() for name, _, value in lines if name.lower() == "location"), "")
    return there if " 307 " in head[:20] else url


def main() -> None:
    url, size, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    step = -(-size // parts)
    errors: list[str] = []
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    if sys.argv[4:] == ["follow"]:
        url = _followed(url)
    threads = [
        threading.Thread(target=_read, args=(url, at, min(size, at + step), parts == 1, errors))
        for at in range(0, size, step)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.monotonic() - begun, flush=True)
    if errors:
        sys.exit("; ".join(errors[:3]))


if __name__ == "__main__":
    main()
