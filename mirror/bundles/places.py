"""What may lie where in a bundle. Pure."""

from enum import Enum

from mirror.errors import BadBundle
from mirror.values import Digest, InvalidDigest, InvalidModelName, ModelName


class Own(Enum):
    """Files of a bundle that OLLAMA_MODELS has not."""

    CONTENTS = "mirror-bundle.json"
    SUMS = "SHA256SUMS"


_OWN = {own.value: own for own in Own}


def blob_path(digest: Digest) -> str:
    """Where a blob is in a bundle."""
    return f"blobs/{digest.filename}"


def manifest_path(name: ModelName) -> str:
    """Where a model's manifest is in a bundle."""
    return f"manifests/{name.host}/{name.namespace}/{name.model}/{name.tag}"


def place(path: str) -> Digest | ModelName | Own | None:
    """Return what the file at ``path`` is; None for what lies among the blobs and is none, as Ollama leaves there.

    Raises:
        BadBundle: it may not be in a bundle.
    """
    match _parts(path):
        case [name] if name in _OWN:
            return _OWN[name]
        case ["blobs", name]:
            try:
                return Digest.parse(name)
            except InvalidDigest:
                return None
        case ["manifests", host, namespace, model, tag]:
            try:
                return ModelName(host, namespace, model, tag)
            except InvalidModelName as error:
                raise BadBundle(f"{path!r} is no place for a manifest: {error}") from error
        case _:
            raise BadBundle(f"{path!r} has no place in a bundle")


def check_folder(path: str) -> None:
    """Raise BadBundle unless ``path`` is a folder on the way to blobs and manifests."""
    if path.rstrip("/") == ".":
        return
    match _parts(path.rstrip("/") or path):
        case ["blobs"]:
            pass
        case ["manifests", *below] if len(below) <= 3:
            pass
        case _:
            raise BadBundle(f"the folder {path!r} has no place in a bundle")


def _parts(path: str) -> list[str]:
    if path.startswith("/"):
        raise BadBundle(f"{path!r} is an absolute path")
    parts = path.removeprefix("./").split("/")
    if ".." in parts:
        raise BadBundle(f"{path!r} leads out of the bundle")
    if "" in parts or "." in parts:
        raise BadBundle(f"{path!r} is not written as a path in a bundle is")
    return parts
