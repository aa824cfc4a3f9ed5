"""A registry that speaks /v2 from memory, and goes wrong on demand.

In a test: ``async with running_fake_registry() as fake``. As a program: ``python -m tests.fakes.registry``, which
prints its URL. There ``POST /faults`` with a Fault as JSON sets one, ``DELETE /faults`` ends them all, ``GET /log``
shows the requests so far and ``POST /release/DIGEST`` lets held bytes go.
"""

import argparse
import asyncio
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from mirror.demo.model import CONFIG_TYPE, manifest_bytes
from mirror.demo.registry import (
    Signer,
    asked_digest,
    check_signature,
    signed_url,
    unknown,
)
from mirror.values import Descriptor, Digest, Manifest, ModelName
from mirror.values.manifest import DOCKER_MANIFEST
from tests.fakes import Entry, Fault, Faults, Log, Wrong, signature_problem
from tests.fakes.pouring import RUNNING, Pouring, Running, reset

_CLOCK_SKEW_S = 300
_CONTROLS = ("/faults", "/log", "/release/")


class FakeRegistry:
    """The registry: give it models, have it go wrong, look at what was asked of it. For one event loop."""

    def __init__(
        self,
        *,
        redirects: bool = True,
        valid_s: float = 1200,
        valid_uses: int | None = None,
        now: Callable[[], float] = time.time,
        remembers: int | None = None,
    ) -> None:
        """``remembers`` is about how many requests are kept in the log; all of them where it is None."""
        self.url = ""
        self._log = Log(remembers)
        self._redirects = redirects
        self._signer = Signer(secret=secrets.token_bytes(32), valid_s=valid_s, now=now)
        self._valid_uses = valid_uses
        self._uses: Counter[str] = Counter()
        self._blobs: dict[Digest, bytes] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        self.faults = Faults()
        self._pouring = Pouring(self._blobs, self.faults, self._log)
        self._tokens: set[str] = set()
        self._nonces: set[str] = set()
        self._runner = web.AppRunner(self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None

    def add_blob(self, content: bytes) -> Digest:
        """Hold a blob."""
        digest = Digest.of(content)
        self._blobs[digest] = content
        return digest

    def add_manifest(self, name: str, raw: bytes) -> Manifest:
        """Hold these bytes under ``NS/MODEL:TAG``, in place of what was there, and under their digest."""
        key, manifest = ModelName.parse(name), Manifest.parse(raw)
        self._manifests[key.repository, key.tag] = raw
        self._manifests[key.repository, str(manifest.digest)] = raw
        return manifest

    def add_model(self, name: str, layers: Mapping[str, bytes], config: bytes = b'{"model_format":"gguf"}') -> Manifest:
        """Hold a model made of layers by media type, under ``NS/MODEL:TAG``."""
        held = [Descriptor(self.add_blob(content), len(content), kind) for kind, content in layers.items()]
        described = Descriptor(self.add_blob(config), len(config), CONFIG_TYPE)
        return self.add_manifest(name, manifest_bytes(described, held))

    def add_folder(self, folder: Path) -> None:
        """Hold all that ``mirror.demo.model.write_model`` wrote into ``folder``."""
        for path in (folder / "blobs").iterdir():
            self._blobs[Digest.parse(path.name)] = path.read_bytes()
        for path in (folder / "manifests").glob("*/*/*"):
            namespace, model, tag = path.parts[-3:]
            self.add_manifest(f"{namespace}/{model}:{tag}", path.read_bytes())

    def manifest_bytes(self, name: str) -> bytes:
        """Return the manifest held under ``NS/MODEL:TAG``."""
        key = ModelName.parse(name)
        return self._manifests[key.repository, key.tag]

    def withdraw(self, name: str) -> None:
        """Have no ``NS/MODEL:TAG`` any more: 404."""
        key = ModelName.parse(name)
        del self._manifests[key.repository, key.tag]

    def forget(self, digest: Digest) -> None:
        """Hold this blob no more: 404."""
        del self._blobs[digest]

    def expire_tokens(self) -> None:
        """Know no token any more that was given out."""
        self._tokens.clear()

    def hold(self, digest: Digest, offset: int = 0) -> None:
        """Let no byte of the blob at ``offset`` or after it go out until released."""
        self._pouring.hold(digest, offset)

    def release(self, digest: Digest) -> None:
        """End the hold on a blob, and let its stalled answers go on."""
        self._pouring.release(digest)

    def blob_bytes_sent(self, digest: Digest | None = None) -> int:
        """Return how many bytes of a blob, or of all of them, went out so far."""
        return self._pouring.sent.total() if digest is None else self._pouring.sent[digest]

    @property
    def log(self) -> list[Entry]:
        """Every request so far, in the order of their arrival."""
        return self._log.entries

    def asked(self, kind: str) -> list[Entry]:
        """Return the logged requests of a kind."""
        return [entry for entry in self.log if entry.kind == kind]

    async def wait_for(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Wait until ``condition`` holds, looked at whenever a request comes, goes or is sent bytes."""
        await self._log.wait_for(condition, timeout)

    async def listen(self, port: int = 0) -> None:
        """Take connections at ``port``; 0 is the port of before, or else one of the system's choice."""
        if self._runner.server is None:
            await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", port or URL(self.url).port or 0)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop_listening(self) -> None:
        """Refuse connections and reset those there are, until ``listen``."""
        if self._site is not None and self._runner.server is not None:
            await self._site.stop()
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    reset(connection.transport)

    async def close(self) -> None:
        """End for good."""
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._witness])
        app.router.add_get("/v2/", self._root, name="root")
        app.router.add_get("/v2/{name:.+}/manifests/{ref}", self._manifest, name="manifest")
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob, name="redirect" if self._redirects else "blob")
        if self._redirects:
            app.router.add_get("/signed/{digest}", self._signed, name="blob")
        app.router.add_get("/token/{who}", self._token, name="token")
        app.router.add_post("/faults", self._set_fault)
        app.router.add_delete("/faults", self._end_faults)
        app.router.add_get("/log", self._show_log)
        app.router.add_post("/release/{digest}", self._release)
        return app

    @web.middleware
    async def _witness(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log the request, and answer it with what must go wrong before anything else."""
        if request.path.startswith(_CONTROLS):
            return await handler(request)
        kind = "head" if request.method == "HEAD" else request.match_info.route.name or "other"
        running = request[RUNNING] = Running((kind, request.match_info.get("digest", "")))
        place = self._log.begin(request, kind)
        try:
            await self._refuse(request, running)
            response = await handler(request)
            running.status = response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                running.sent = len(response.body)
        except web.HTTPException as answer:
            running.status = answer.status
            raise
        else:
            return response
        finally:
            self._log.end(place, status=running.status, sent=running.sent)

    async def _refuse(self, request: web.Request, running: Running) -> None:
        """Raise the answer of a fault that leaves nothing of the true answer, if one is set."""
        if fault := self.faults.take(Wrong.DELAY, *running.key):
            await asyncio.sleep(fault.value)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._tokens and (fault := self.faults.take(Wrong.CHALLENGE, *running.key)):
            scope = f"repository:{request.match_info.get('name', '')}:pull"
            realm = f"{request.url.origin()}/token/{fault.text or 'anonymous'}"
            challenge = f'Bearer realm="{realm}",service="fake",scope="{scope}"'
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": challenge})
        if fault := self.faults.take(Wrong.BUSY, *running.key):
            raise web.HTTPTooManyRequests(headers={"Retry-After": fault.text or "1"})
        if fault := self.faults.take(Wrong.REDIRECT, *running.key):
            raise web.HTTPTemporaryRedirect(fault.text)
        if fault := self.faults.take(Wrong.STATUS, *running.key):
            answer = web.HTTPException(text=fault.text)
            answer.set_status(int(fault.value))
            raise answer

    async def _root(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _manifest(self, request: web.Request) -> web.Response:
        raw = self._manifests.get((request.match_info["name"], request.match_info["ref"]))
        if raw is None:
            raise unknown("MANIFEST_UNKNOWN")
        running = request[RUNNING]
        fault = self.faults.take(Wrong.TYPE, *running.key)
        digest = Digest("0" * 64) if self.faults.take(Wrong.DIGEST, *running.key) else Digest.of(raw)
        headers = {
            "Content-Type": fault.text if fault else DOCKER_MANIFEST,
            "Docker-Content-Digest": str(digest),
            "Ollama-Content-Digest": digest.hex,
        }
        return web.Response(body=raw, headers=headers)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = asked_digest(request)
        if digest not in self._blobs:
            raise unknown("BLOB_UNKNOWN")
        if not self._redirects:
            return await self._pouring.send(request, digest)
        # Each address is counted by itself, also where two were signed in the same instant.
        url = signed_url(request, "localhost", self._signer, digest).update_query(serial=self._log.count)
        raise web.HTTPTemporaryRedirect(url)

    async def _signed(self, request: web.Request) -> web.StreamResponse:
        digest = asked_digest(request)
        check_signature(request, self._signer, digest)
        serial = request.query.get("serial", "")
        if self._valid_uses is not None:
            self._uses[serial] += 1
        if self._valid_uses is not None and self._uses[serial] > self._valid_uses:
            raise web.HTTPForbidden(text="the address is used up")
        if digest not in self._blobs:
            raise unknown("BLOB_UNKNOWN")
        return await self._pouring.send(request, digest)

    async def _token(self, request: web.Request) -> web.Response:
        if request.match_info["who"] == "signed":
            nonce, ts = request.query.get("nonce", ""), request.query.get("ts", "")
            stale = not ts.isdigit() or abs(self._signer.now() - int(ts)) > _CLOCK_SKEW_S
            problem = signature_problem(request) or ("too old" if stale else None)
            if problem or not nonce or nonce in self._nonces:
                raise web.HTTPUnauthorized(text=problem or "the nonce is missing or used")
            self._nonces.add(nonce)
        token = secrets.token_urlsafe(16)
        self._tokens.add(token)
        return web.json_response({"token": token})

    async def _set_fault(self, request: web.Request) -> web.Response:
        self.faults.add(Fault.parse(await request.text()))
        return web.Response(status=204)

    async def _end_faults(self, request: web.Request) -> web.Response:
        self.faults.clear()
        return web.Response(status=204)

    async def _show_log(self, request: web.Request) -> web.Response:
        return web.json_response([asdict(entry) for entry in self.log])

    async def _release(self, request: web.Request) -> web.Response:
        self.release(asked_digest(request))
        return web.Response(status=204)


@asynccontextmanager
async def running_fake_registry(
    *,
    port: int = 0,
    redirects: bool = True,
    valid_s: float = 1200,
    valid_uses: int | None = None,
    now: Callable[[], float] = time.time,
    remembers: int | None = None,
) -> AsyncIterator[FakeRegistry]:
    """Serve an empty registry on 127.0.0.1 while the block runs.

    It redirects to signed addresses at localhost, valid for ``valid_s`` seconds of ``now`` and ``valid_uses``
    GETs, or without ``redirects`` gives blobs away itself, as docker-registry does.
    """
    fake = FakeRegistry(redirects=redirects, valid_s=valid_s, valid_uses=valid_uses, now=now, remembers=remembers)
    try:
        await fake.listen(port)
        yield fake
    finally:
        await fake.close()


async def _serve(options: argparse.Namespace) -> None:
    async with running_fake_registry(port=options.port, redirects=not options.no_redirects) as fake:
        if options.folder is not None:
            fake.add_folder(options.folder)
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Run as a program until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.registry", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses")
    parser.add_argument("--folder", type=Path, help="models as mirror.demo.model writes them")
    parser.add_argument("--no-redirects", action="store_true", help="give blobs away without a signed address")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
