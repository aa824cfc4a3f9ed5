"""One client machine: reads a blob in ranges, each on a connection of its own, and throws the bytes away.

``python -m bench.load URL SIZE PARTS`` waits for a line on standard input, reads, and prints the seconds it took.
"""

import socket
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

_BUFFER = 1 << 20


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    connection = socket.create_connection((parts.hostname or "", parts.port or default))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(connection)
    return connection


def _read(url: str, start: int, stop: int, errors: list[str]) -> None:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nRange: bytes={start}-{stop - 1}\r\nConnection: close\r\n\r\n"
    )
    try:
        with _connect(url) as connection:
            connection.sendall(head.encode())
            buffer, got = memoryview(bytearray(_BUFFER)), b""
            while b"\r\n\r\n" not in got:
                chunk = connection.recv(4096)
                if not chunk:
                    break
                got += chunk
            answer, _, body = got.partition(b"\r\n\r\n")
            left = stop - start - len(body)
            while left > 0 and (count := connection.recv_into(buffer)):
                left -= count
            if b" 206 " not in answer[:20] or left:
                errors.append(f"{answer[:60]!r}, {left} bytes short")
    except OSError as error:
        errors.append(str(error))


def main() -> None:
    url, size, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    step = -(-size // parts)
    errors: list[str] = []
    threads = [
        threading.Thread(target=_read, args=(url, at, min(size, at + step), errors)) for at in range(0, size, step)
    ]
    sys.stdin.readline()
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.monotonic() - begun, flush=True)
    if errors:
        sys.exit("; ".join(errors[:3]))


if __name__ == "__main__":
    main()
