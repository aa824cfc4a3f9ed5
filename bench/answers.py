"""An Ollama for the bench: ``python -m bench.answers PORT``. As quick as aiohttp is; words come 1 ms apart.

Each word is the time at which it was said, by the machine's monotonic clock, so that a reader sees how late it is.
``POST /hold`` lets nothing be answered until ``DELETE /hold``.
"""

import asyncio
import json
import sys
import time

from aiohttp import web

WORDS = 50
_GO = asyncio.Event()
_MODEL = {"models": [{"name": "m:latest", "model": "m:latest", "size": 1, "digest": "0" * 64}]}
_END = {"model": "m", "response": "", "done": True, "prompt_eval_count": 5, "eval_count": WORDS}


async def generate(request: web.Request) -> web.StreamResponse:
    said = json.loads(await request.read())
    await _GO.wait()
    if not said.get("stream"):
        return web.json_response(_END)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    begun = time.monotonic()
    for number in range(WORDS):
        await asyncio.sleep(max(0.0, begun + number * 0.001 - time.monotonic()))
        await response.write(json.dumps({"response": str(time.monotonic()), "done": False}).encode() + b"\n")
    await response.write(json.dumps(_END).encode() + b"\n")
    return response


async def models(_: web.Request) -> web.StreamResponse:
    return web.json_response(_MODEL)


async def hold(request: web.Request) -> web.StreamResponse:
    (_GO.clear if request.method == "POST" else _GO.set)()
    return web.Response()


def main() -> None:
    _GO.set()
    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/api/generate", generate), web.get("/api/tags", models), web.get("/api/ps", models)])
    app.add_routes([web.post("/hold", hold), web.delete("/hold", hold)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
