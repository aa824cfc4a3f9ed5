"""What a mirror answers, as an OpenAPI document: written by hand in parts, put together, served, shown to people."""

from mirror.web.openapi.document import METHODS, PARTS, Document, Routes, document
from mirror.web.openapi.face import OpenApiFace
from mirror.web.openapi.reference import reference
from mirror.web.openapi.routes import catch_alls_of, routes_of

__all__ = [
    "METHODS",
    "PARTS",
    "Document",
    "OpenApiFace",
    "Routes",
    "catch_alls_of",
    "document",
    "reference",
    "routes_of",
]
