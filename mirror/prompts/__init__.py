"""Prompt jobs: prompts that are taken at once, kept, and answered when there is a turn for them.

Touches the database, through its table; HTTP; Ollamas, by way of turns on them; and webhooks.
"""

from mirror.prompts.database import transacted
from mirror.prompts.face import PromptFace
from mirror.prompts.lines import Lines, Over, forget_lines
from mirror.prompts.live import Lives
from mirror.prompts.prompt import (
    Asked,
    InvalidPrompt,
    Line,
    NoSuchPrompt,
    Prompt,
    PromptsUnusable,
    State,
    TooManyPrompts,
    parse_prompt,
)
from mirror.prompts.prompts import Page, Prompts
from mirror.prompts.responses import refusal
from mirror.prompts.running import Running
from mirror.prompts.sight import Sight
from mirror.prompts.untold import Ends
from mirror.prompts.webhooks import Webhooks
from mirror.prompts.worker import Worker

__all__ = [
    "Asked",
    "Ends",
    "InvalidPrompt",
    "Line",
    "Lines",
    "Lives",
    "NoSuchPrompt",
    "Over",
    "Page",
    "Prompt",
    "PromptFace",
    "Prompts",
    "PromptsUnusable",
    "Running",
    "Sight",
    "State",
    "TooManyPrompts",
    "Webhooks",
    "Worker",
    "forget_lines",
    "parse_prompt",
    "refusal",
    "transacted",
]
