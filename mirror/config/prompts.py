"""The settings of prompt jobs: prompts that are taken now and answered when there is a turn for them."""

from pydantic import Field

from mirror.config.groups import Section
from mirror.config.kinds import Hosts, Run, RunOf, Secret, Text, Windows
from mirror.config.units import ByteSize, Duration


class PromptSettings(Section):
    """Prompt jobs: prompts that are taken at once, and answered in their turn."""

    enabled: bool = Field(True, description="Answer /api/v1/prompt, /api/v1/prompts, /v1/files and /v1/batches.")
    model: Text = Field("llama3.2", description="Model of prompts that name none.")
    at_once: int = Field(4, ge=1, le=1000, description="Prompts of one user that run or wait for a turn at once.")
    idle_at_once: int = Field(1, ge=1, le=1000, description="Prompts with run: idle that run at once, of all users.")
    windows: Windows = Field(
        (), description="When prompts with run: window are begun, as pulls.windows; none listed are those."
    )
    max_queued: int = Field(10_000, ge=1, le=100_000, description="Most prompts that are under way at once.")
    max_size: ByteSize = Field(1_000_000_000, gt=0, description="Most bytes that those have all in all.")
    tries: int = Field(5, ge=1, le=100, description="Times that a prompt is tried which fails for what may pass.")
    retry_delay: Duration = Field(30.0, description="Wait before the second try; each one after waits twice as long.")
    webhook_secret: Secret | None = Field(None, description="Secret by which what webhooks are told is signed.")
    webhook_hosts: Hosts = Field(
        (), description="Hosts in private networks that webhooks may go to, such as n8n.lan or 10.0.0.7:5678."
    )
    batch_run: RunOf = Field(
        Run.IDLE, description="When lines of batches are begun that do not say it: now, idle or window."
    )
    file_size: ByteSize = Field(200_000_000, ge=1024, description="Most bytes of a file that is brought for a batch.")
    files_size: ByteSize = Field(10_000_000_000, ge=1024, description="Most bytes that all such files have together.")
    keep: Duration = Field(
        2_592_000.0, description="Prompts and batches that are over, and their answers and files, are kept for so long."
    )
