"""Which blobs models need. Looks at nothing by itself."""

from collections.abc import Callable, Iterable, Iterator

from mirror.errors import BadBundle
from mirror.values import Descriptor, Digest, Manifest, ModelName

_MOST_MANIFESTS = 1000
"""Of one model; indexes of indexes have no natural end."""
_SHOWN = 5

Child = Callable[[Digest], Manifest | None]
"""Reads a manifest that an index names; None where the blob is no manifest."""


def needed(manifest: Manifest, child: Child) -> Iterator[Descriptor]:
    """Yield every blob a model needs, once each: its own, and those that the manifests an index names need.

    Raises:
        BadBundle: there is no end of them.
    """
    seen: set[Digest] = set()
    unread: list[Digest] = []
    one: Manifest | None = manifest
    for _ in range(_MOST_MANIFESTS):
        if one is not None:
            children = {blob.digest for blob in one.children}
            for blob in one.blobs:
                if blob.digest not in seen:
                    seen.add(blob.digest)
                    yield blob
                    unread += [blob.digest] if blob.digest in children else ()
        if not unread:
            return
        one = child(unread.pop())
    raise BadBundle(f"a model names more than {_MOST_MANIFESTS} manifests")


def demanded(
    models: Iterable[tuple[ModelName, Manifest]], found: Callable[[Descriptor], int | None], child: Child
) -> dict[Digest, int]:
    """Return every blob that ``models`` need with its size in bytes, if each is there.

    ``found`` says which size a blob has where it was looked for; None where it is not.

    Raises:
        BadBundle: blobs are lacking, or have another size than a manifest says.
    """
    there: dict[Digest, int] = {}
    lacking: dict[Digest, ModelName] = {}
    for name, manifest in models:
        for blob in needed(manifest, child):
            size = found(blob)
            if size is None:
                lacking[blob.digest] = name
            elif size != blob.size:
                raise BadBundle(f"{name.short} says that {blob.digest} has {blob.size} bytes; it has {size}")
            else:
                there[blob.digest] = size
    if lacking:
        shown = ", ".join(f"{digest} of {name.short}" for digest, name in list(lacking.items())[:_SHOWN])
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise BadBundle(f"models lack blobs that are nowhere to be found: {shown}{more}")
    return there
