"""Models that only the store has, brought to an Ollama that is to run them."""

from mirror.config import Settings
from mirror.dispatch import Fetch, Pool
from mirror.fill import Admission, Tags
from mirror.pulls import Deliveries
from mirror.values import ModelName


def fetching(settings: Settings, tags: Tags, deliveries: Deliveries, admission: Admission, pool: Pool) -> Fetch:
    """Return what brings one, where ``dispatch.deliver_missing`` allows it."""

    async def fetch(text: str, user: str) -> bool:
        name = tags.filed(ModelName.parse(text, host=settings.upstream.host))
        manifest = deliveries.manifest(name) if settings.dispatch.deliver_missing else None
        if manifest is None:
            return False
        await admission.after(name, manifest, user)
        if pool.lone:
            await deliveries.deliver(name)
        elif (member := pool.least_busy()) is not None:
            await deliveries.bring(name, member.backend)
        return True

    return fetch
