"""The settings of the queue of pulls."""

from pydantic import Field

from mirror.config.groups import Destinations, Section
from mirror.config.kinds import AnyPath, Delivery, DeliveryWay, Mode, Patterns, PullMode, RatesOf, Secret, Windows, Zone
from mirror.config.units import Duration, Share, ShareOf
from mirror.config.webhook import WebhookUrl


class PullSettings(Section):
    """The queue of pulls, which is worked off in the quiet hours."""

    mode: Mode = Field(
        PullMode.QUEUE, description="POST /api/pull is queued (queue), done now (now), or waits for its turn (wait)."
    )
    delivery: DeliveryWay = Field(
        Delivery.AUTO, description="How models get to an Ollama: link, pull, none; auto links where a folder is known."
    )
    deliver_to: Destinations = Field(
        (), description="Ollamas that models are delivered to: URLs, or groups; none listed is proxy.backend."
    )
    show_stored: bool = Field(
        False, description="List in /api/tags what is in the store and not in the Ollama, as * [STORED] name."
    )
    windows: Windows = Field(
        ("22:00-06:00",),
        description="When queued models are fetched: Mon-Fri 22:00-06:00, or 0 22 * * 1-5 for 8h; 00:00-24:00 is ever.",
    )
    timezone: Zone | None = Field(None, description="Time zone of the windows; null is the machine's.")
    rate: RatesOf | None = Field(
        None, description="Bytes per second of all that nobody reads meanwhile, as upstream.rate; null is no limit."
    )
    keep: Patterns = Field(
        (), description="Models that are kept fresh in every window: llama3.2, or of those that are here qwen3:*."
    )
    tries: int = Field(
        5, ge=1, le=100, description="Times that a model is tried which fails for a reason that may pass."
    )
    retry_delay: Duration = Field(300.0, description="Wait before the second try; each one after waits twice as long.")
    max_queued: int = Field(1000, ge=1, le=100_000, description="Most models that are queued at once.")
    daily_limit: int = Field(5, ge=0, description="Models that one client may ask for in a day; 0 is no limit.")
    disk_threshold: ShareOf = Field(
        Share(90.0), description="Use of the store's disk above which nothing more is queued or begun."
    )
    disk_path: AnyPath | None = Field(None, description="Path on the disk that is watched; null is the store's.")
    webhook: WebhookUrl | None = Field(
        None, repr=False, description="URL that is told, by POST, how each pull of the queue ended; null tells nobody."
    )
    webhook_secret: Secret | None = Field(None, description="Secret by which what it is told is signed.")
    history: Duration = Field(2_592_000.0, description="Jobs that are over are remembered for so long.")
