"""Prometheus metrics, counted from the news and looked up at each scrape."""

import asyncio
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from mirror import __version__
from mirror.dispatch import Pool, Turns, model_key
from mirror.errors import StoreError
from mirror.events import (
    Answered,
    BlobDamaged,
    BlobRepaired,
    BlobServed,
    BytesFetched,
    DigestMismatched,
    Event,
    FillEnded,
    FillStarted,
    LeftoverRemoved,
    ManifestServed,
    ModelRemoved,
    NotKept,
    ScrubEnded,
    Served,
    UpstreamAnswered,
)
from mirror.fill import Fills
from mirror.hub import Nodes
from mirror.pulls import Pace, Queue, State
from mirror.store import Store

_MOST_MODELS = 100
_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)


class Metrics:
    """Listens to the news and answers scrapes.

    Labels are bounded: results, directions, upstream hosts, Ollamas, and the first ``_MOST_MODELS`` models that answer;
    those after them are ``other``. Users are no label: their number has no bound, and their names are their own.
    """

    def __init__(self, looked: "Looked") -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        requests = Counter("mirror_cache_requests", "Requests by kind and result.", ["kind", "result"], registry=kept)
        self._manifests = {result: requests.labels("manifest", result.value.lower()) for result in Served}
        self._blobs = {result: requests.labels("blob", result.value.lower()) for result in Served}
        moved = Counter("mirror_cache_bytes", "Bytes by direction.", ["direction"], registry=kept)
        self._to_clients, self._from_upstream = moved.labels("client"), moved.labels("upstream")
        self._fill_s = Histogram(
            "mirror_fill_duration_seconds", "Time of whole fills.", buckets=_SECONDS, registry=kept
        )
        self._fills = Counter("mirror_fills", "Fills by outcome.", ["outcome"], registry=kept)
        self._resumed = Counter("mirror_fill_resumed", "Fills that went on with what was there.", registry=kept)
        self._mismatches = Counter("mirror_digest_mismatch", "Blobs that came with wrong bytes.", registry=kept)
        self._not_kept = Counter(
            "mirror_not_kept", "Blobs passed through because they could not be kept.", registry=kept
        )
        why = ["kind", "reason"]
        self._removed = Counter("mirror_evictions", "Things taken out of the store.", why, registry=kept)
        self._freed = Counter("mirror_evicted_bytes", "Bytes freed by taking them out.", why, registry=kept)
        self._scrub_errors = Counter("mirror_scrub_errors", "Damaged blobs that scrubs found.", registry=kept)
        self._damaged = Counter("mirror_blobs_damaged", "Blobs found not to be what they were.", registry=kept)
        self._repaired = Counter("mirror_blobs_repaired", "Damaged blobs that were fetched again.", registry=kept)
        self._scrubbed_at = Gauge(
            "mirror_scrub_last_end_timestamp_seconds", "When every blob had been hashed again.", registry=kept
        )
        self._scrub_damaged = Gauge("mirror_scrub_last_damaged", "Damaged blobs of the last scrub.", registry=kept)
        self._upstream_s = Histogram(
            "mirror_upstream_request_duration_seconds",
            "Time of small requests.",
            ["host"],
            buckets=_SECONDS,
            registry=kept,
        )
        self._upstream_at = Gauge(
            "mirror_upstream_last_success_timestamp_seconds",
            "When the upstream last answered.",
            ["host"],
            registry=kept,
        )
        self._answers = Counter(
            "mirror_answers", "Answers of models, by Ollama and status.", ["node", "status"], registry=kept
        )
        self._tokens = Counter(
            "mirror_generate_tokens", "Tokens read and made, by model.", ["model", "kind"], registry=kept
        )
        self._first_s = Histogram(
            "mirror_generate_ttft_seconds",
            "Time from the turn to the first of the answer, by model.",
            ["model"],
            buckets=_SECONDS,
            registry=kept,
        )
        self._models: set[str] = set()
        self._waited_s = Histogram(
            "mirror_queue_wait_seconds", "Time that requests waited for a turn.", buckets=_SECONDS, registry=kept
        )
        self._ran_s = Histogram("mirror_answer_seconds", "Time of answers.", buckets=_SECONDS, registry=kept)
        Info("mirror_build", "The version that runs.", registry=kept).info({"version": __version__})
        self._looked = looked
        self.registry.register(looked)

    def hear(self, event: Event) -> None:
        """Count one piece of news; the tap for ``Events``."""
        match event:
            case ManifestServed(_, result):
                self._manifests[result].inc()
            case BlobServed(_, _, result, sent):
                self._blobs[result].inc()
                self._to_clients.inc(sent)
            case BytesFetched(_, count):
                self._from_upstream.inc(count)
            case FillStarted(_, _, resumed):
                self._resumed.inc(resumed > 0)
            case FillEnded(_, _, _, duration_s, error):
                self._fill_s.observe(duration_s)
                self._fills.labels("failed" if error else "stored").inc()
            case DigestMismatched():
                self._mismatches.inc()
            case NotKept():
                self._not_kept.inc()
            case UpstreamAnswered(host, duration_s, ok):
                self._upstream_s.labels(host).observe(duration_s)
                if ok:
                    self._upstream_at.labels(host).set_to_current_time()
            case Answered():
                self._hear_answer(event)
            case ModelRemoved() | LeftoverRemoved() | BlobDamaged() | BlobRepaired() | ScrubEnded():
                self._hear_keeping(event)
            case _:
                pass

    def _hear_answer(self, event: Answered) -> None:
        model = self._model(event.model if event.status < 300 else "")
        self._answers.labels(event.backend, str(event.status)).inc()
        self._tokens.labels(model, "read").inc(event.prompt)
        self._tokens.labels(model, "made").inc(event.made)
        self._waited_s.observe(event.waited_s)
        self._ran_s.observe(event.ran_s)
        if event.first_s is not None and event.status < 300:
            self._first_s.labels(model).observe(event.first_s)

    def _model(self, text: str) -> str:
        """Return the label for a model; no number of names makes more of them than there may be."""
        key = model_key(text) if text else ""
        if key and len(self._models) < _MOST_MODELS:
            self._models.add(key)
        return key if key in self._models else "other"

    def _hear_keeping(self, event: Event) -> None:
        match event:
            case ModelRemoved(_, freed, reason, _):
                self._removed.labels("model", reason.value).inc()
                self._freed.labels("model", reason.value).inc(freed)
            case LeftoverRemoved(kind, _, freed, reason, _):
                self._removed.labels(kind, reason.value).inc()
                self._freed.labels(kind, reason.value).inc(freed)
            case BlobDamaged():
                self._damaged.inc()
            case BlobRepaired():
                self._repaired.inc()
            case ScrubEnded(damaged=damaged):
                self._scrubbed_at.set_to_current_time()
                self._scrub_damaged.set(damaged)
                self._scrub_errors.inc(damaged)
            case _:
                pass

    def text(self, blob_sizes: Sequence[int]) -> bytes:
        """Return everything in the text format; ``blob_sizes`` is what the disk holds now."""
        self._looked.blob_sizes = blob_sizes
        return generate_latest(self.registry)


@dataclass(eq=False, slots=True)
class Looked:
    """What is not counted but looked up; ``prompts`` returns how many prompt jobs are under way, by state."""

    store: Store
    fills: Fills
    turns: Turns
    pool: Pool
    nodes: Nodes
    queue: Queue
    pace: Pace
    prompts: Callable[[], Mapping[str, int]]
    blob_sizes: Sequence[int] = ()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges of this moment. For the event loop's thread."""
        yield from self._of_the_store()
        yield from self._of_pulls()
        yield from self._of_turns()
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("mirror_tasks", "Tasks of the event loop that are not over.", value=tasks)

    def _of_the_store(self) -> Iterable[Metric]:
        room, fills = self.store.room, self.fills.in_flight
        by_state = GaugeMetricFamily("mirror_store_bytes", "Bytes on disk by state.", labels=["state"])
        by_state.add_metric(["proven"], sum(self.blob_sizes))
        by_state.add_metric(["partial"], sum(room.partials().values()))
        by_state.add_metric(["quarantine"], room.aside())
        by_state.add_metric(["promised"], sum(room.coming.values()))
        yield by_state
        with suppress(StoreError):  # a disk that cannot be asked must not take the other figures along
            limit = room.limits().size
            if limit is not None:
                yield GaugeMetricFamily("mirror_store_limit_bytes", "Most that the store may hold.", value=limit)
        damaged = len(self.store.damaged_models())
        yield GaugeMetricFamily("mirror_store_damaged_models", "Models that lack a damaged blob.", value=damaged)
        yield GaugeMetricFamily("mirror_store_blobs", "Proven blobs.", value=len(self.blob_sizes))
        yield GaugeMetricFamily("mirror_store_models", "Complete models.", value=len(self.store.complete))
        yield GaugeMetricFamily("mirror_fill_inflight", "Fills that run.", value=len(fills))
        yield GaugeMetricFamily("mirror_fill_readers", "Readers of fills.", value=sum(one.readers for one in fills))

    def _of_pulls(self) -> Iterable[Metric]:
        states = Counts(job.state for job in self.queue.jobs)
        jobs = GaugeMetricFamily("mirror_pull_jobs", "Pulls under way by state.", labels=["state"])
        for state in State:
            if not state.over:
                jobs.add_metric([state.value], states[state])
        yield jobs
        rates = GaugeMetricFamily(
            "mirror_bandwidth_limit_bytes", "Bytes per second that may come in now, where limited.", labels=["kind"]
        )
        for kind, rate in (("pulls", self.pace.ahead), ("upstream", self.pace.upstream)):
            if rate is not None:
                rates.add_metric([kind], rate)
        yield rates
        prompts = GaugeMetricFamily("mirror_jobs", "Prompt jobs under way by state.", labels=["state"])
        for name, count in self.prompts().items():
            prompts.add_metric([name], count)
        yield prompts

    def _of_turns(self) -> Iterable[Metric]:
        waiting = self.turns.waiting
        yield GaugeMetricFamily("mirror_queue_depth", "Requests that wait for a turn.", value=waiting)
        failovers = self.turns.failovers
        yield CounterMetricFamily("mirror_failovers", "Turns that went on to another Ollama.", value=failovers)
        up = GaugeMetricFamily("mirror_node_up", "Ollamas that can be used.", labels=["node"])
        active = GaugeMetricFamily("mirror_node_active", "Requests that run on an Ollama.", labels=["node"])
        for one in self.pool:
            up.add_metric([one.id], self.pool.usable(one))
            active.add_metric([one.id], one.active)
        yield up
        yield active
        age = GaugeMetricFamily("mirror_node_heartbeat_age_seconds", "Time since a node was heard of.", labels=["node"])
        now = datetime.now(UTC)
        for node in self.nodes:
            age.add_metric([node.id], max(0.0, (now - node.last_seen).total_seconds()))
        yield age
