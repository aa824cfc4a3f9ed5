"""``GET /mirror/ca.pem``."""

from collections.abc import Iterable

from aiohttp import web

from mirror.listen.certificates import Certificates

_NONE = "this mirror has no CA; mirror tls init makes one\n"


class CertificateFace:
    """Gives away the CA's certificate, which is no secret; who takes it by plain HTTP compares the fingerprint."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """Return its one route."""
        return [web.get("/mirror/ca.pem", self._certificate)]

    async def _certificate(self, request: web.Request) -> web.Response:
        authority = await self._certificates.authority()
        if authority is None:
            raise web.HTTPNotFound(text=_NONE)
        headers = {"Content-Disposition": 'attachment; filename="ollama-mirror-ca.pem"', "Cache-Control": "no-cache"}
        return web.Response(body=authority.pem, content_type="application/x-pem-file", headers=headers)
