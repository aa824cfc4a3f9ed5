"""A program that a webhook tells: prints one line of JSON for each POST, and whether its signature is sound.

``python -m tests.fakes.receiver SECRET``; the first line is its URL. The check is written out as docs/pulls.md has it.
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


def say(line: str) -> None:
    """Tell who started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Print what came, and take it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        timestamp = self.headers.get("X-Mirror-Timestamp", "0")
        wanted = hmac.new(sys.argv[1].encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        sound = hmac.compare_digest(f"sha256={wanted}", self.headers.get("X-Mirror-Signature", ""))
        fresh = abs(time.time() - int(timestamp)) < 300
        told = {"sound": sound and fresh, "delivery": self.headers["X-Mirror-Delivery"], "view": json.loads(body)}
        say(json.dumps(told))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the class it overrides has it
        """Say nothing."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    say(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()
