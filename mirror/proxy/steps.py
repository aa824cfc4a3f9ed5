"""What of a model is in the store, told in the lines of Ollama's pulls."""

from collections.abc import Callable

from mirror.fill import Fills
from mirror.ollama import Progress
from mirror.store import Store
from mirror.values import Descriptor, Digest, ModelName

Tell = Callable[[Progress], None]


class Steps:
    """What of a model's blobs is here, told whenever it is more than before."""

    def __init__(self, store: Store, fills: Fills, name: ModelName, tell: Tell) -> None:
        self._store = store
        self._fills = fills
        self._name = name
        self._tell = tell
        self._here: dict[Digest, int] = {}

    def look(self) -> None:
        """Tell of every blob of which more is here now; nothing before the manifest is known."""
        stored = self._store.find(self._name)
        if stored is None:
            return
        filling = {fill.digest: fill.here for fill in self._fills.in_flight}
        for blob in self._store.expanded(stored):
            if self._here.get(blob.digest) == blob.size:
                continue
            whole = self._store.blobs.size(blob.digest) is not None
            here = blob.size if whole else min(filling.get(blob.digest, 0), blob.size - 1)
            if here > self._here.get(blob.digest, 0) or whole:
                self._here[blob.digest] = here
                self._tell(_of(blob, here))


def _of(blob: Descriptor, here: int) -> Progress:
    short = blob.digest.hex[:12]
    return Progress(status=f"pulling {short}", digest=str(blob.digest), total=blob.size, completed=here)
