"""A registry that answers manifests itself and redirects blobs to a file server.

``python -m bench.registry FOLDER BLOBS_AT PORT``
"""

import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    folder, blobs_at, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    async def manifest(request: web.Request) -> web.Response:
        path = folder / "manifests" / request.match_info["name"] / request.match_info["tag"]
        return web.Response(body=path.read_bytes(), content_type="text/plain")

    async def blob(request: web.Request) -> web.Response:
        digest = request.match_info["digest"].replace(":", "-")
        return web.Response(status=307, headers={"Location": f"{blobs_at}/blobs/{digest}"})

    async def base(request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/v2/", base)
    app.router.add_get("/v2/{name:.+}/manifests/{tag}", manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", blob)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
