"""Prompt jobs, built on one screen."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.access import Users
from mirror.app.pulling import zone_of
from mirror.config import PromptSettings, Settings
from mirror.dispatch import Attempts, Fetch, IdleTurns, Pool, Turns
from mirror.events import Events
from mirror.fill import Admission
from mirror.prompts import Ends, Lives, PromptFace, Prompts, Running, Sight, Webhooks, Worker
from mirror.pulls import Clock, Posting, WallClock
from mirror.upstream.addresses import PublicAddresses
from mirror.values.window import Schedule, parse_window

_PATIENCE = 10
"""Times the silence of a node that is borne where its first byte is the end of the answer."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """What keeps prompt jobs, and what does them."""

    prompts: Prompts
    worker: Worker
    webhooks: Webhooks
    lives: Lives

    async def run(self) -> None:
        """Do them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.worker.run(), name="prompts")
            group.create_task(self.webhooks.run(), name="webhooks of prompts")

    def sight(self, settings: Settings, guarded: Callable[[], bool]) -> Sight:
        """Return who sees what; ``guarded`` says whether there are keys."""
        return Sight(Users(settings.dispatch.trusted_users), guarded)

    def face(self, settings: Settings, admission: Admission, guarded: Callable[[], bool]) -> PromptFace:
        """Return their routes; ``guarded`` says whether there are keys."""
        said = settings.dispatch
        return PromptFace(
            self.prompts,
            self.worker,
            self.lives,
            self.sight(settings, guarded),
            admission,
            self.webhooks,
            model=settings.prompts.model,
            aliases=dict(said.aliases),
            max_body=settings.proxy.max_body,
        )


async def opened_prompting(
    settings: Settings, engine: AsyncEngine, events: Events, turns: Turns, pool: Pool, fetch: Fetch
) -> Prompting:
    """Build it, with what an earlier life has left. Raises PromptsUnusable."""
    said, clock, lives = settings.prompts, WallClock(), Lives()
    prompts = Prompts(engine, said.max_queued, said.max_size, clock.now)
    await prompts.load()
    silence_s, retries = settings.hub.request_timeout, settings.dispatch.retries
    attempts = Attempts(turns, pool, silence_s=silence_s, retries=retries)
    patient = Attempts(turns, pool, silence_s=_PATIENCE * silence_s, retries=retries)
    idle = IdleTurns(turns, pool, said.idle_at_once)
    running = Running(prompts, lives, turns, idle, pool, attempts, patient, events, fetch)
    windows = tuple(map(parse_window, said.windows or settings.pulls.windows))
    worker = Worker(prompts, running, lives, said, Schedule(windows, zone_of(settings)), clock)
    webhooks = _webhooks(said, prompts, Ends(engine), clock)
    return Prompting(prompts, worker, webhooks, lives)


def _webhooks(said: PromptSettings, prompts: Prompts, ends: Ends, clock: Clock) -> Webhooks:
    secret = said.webhook_secret
    posting = Posting(secret.get_secret_value() if secret else None)
    return Webhooks(prompts, ends, posting, PublicAddresses(said.webhook_hosts), clock)
