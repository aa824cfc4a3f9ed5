"""Prompt jobs, built on one screen."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from mirror.access import Users
from mirror.config import Settings
from mirror.dispatch import Attempts, Pool, Turns
from mirror.events import Events
from mirror.fill import Admission
from mirror.prompts import Lives, PromptFace, Prompts, Running, Worker


@dataclass(frozen=True, slots=True)
class Prompting:
    """What keeps prompt jobs, and what does them."""

    prompts: Prompts
    worker: Worker
    lives: Lives

    def face(self, settings: Settings, admission: Admission, guarded: Callable[[], bool]) -> PromptFace:
        """Return their routes; ``guarded`` says whether there are keys."""
        said = settings.dispatch
        return PromptFace(
            self.prompts,
            self.worker,
            self.lives,
            Users(said.trusted_users),
            admission,
            guarded,
            model=settings.prompts.model,
            aliases=dict(said.aliases),
            max_body=settings.proxy.max_body,
        )


async def opened_prompting(
    settings: Settings, engine: AsyncEngine, events: Events, turns: Turns, pool: Pool
) -> Prompting:
    """Build it, with what an earlier life has left. Raises PromptsUnusable."""
    prompts, lives = Prompts(engine, settings.prompts.max_queued, settings.prompts.max_size), Lives()
    await prompts.load()
    attempts = Attempts(turns, pool, silence_s=settings.hub.request_timeout, retries=settings.dispatch.retries)
    running = Running(prompts, lives, turns, pool, attempts, events)
    return Prompting(prompts, Worker(prompts, running, lives, settings.prompts), lives)
