"""Prometheus metrics, counted from the news and looked up at each scrape."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from mirror import __version__
from mirror.dispatch import Pool, Turns
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
from mirror.store import Store

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)


class Metrics:
    """Listens to the news and answers scrapes. Labels are bounded: results, directions, upstream hosts, Ollamas."""

    def __init__(self, store: Store, fills: Fills, turns: Turns, pool: Pool) -> None:
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
        self._removed = Counter("mirror_removed", "Things taken out of the store.", why, registry=kept)
        self._freed = Counter("mirror_removed_bytes", "Bytes freed by taking them out.", why, registry=kept)
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
        self._tokens = Counter("mirror_answer_tokens", "Tokens read and made.", ["kind"], registry=kept)
        self._waited_s = Histogram(
            "mirror_queue_wait_seconds", "Time that requests waited for a turn.", buckets=_SECONDS, registry=kept
        )
        self._ran_s = Histogram("mirror_answer_seconds", "Time of answers.", buckets=_SECONDS, registry=kept)
        Info("mirror_build", "The version that runs.", registry=kept).info({"version": __version__})
        self._looked = _Looked(store, fills, turns, pool)
        self.registry.register(self._looked)

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
        self._answers.labels(event.backend, str(event.status)).inc()
        self._tokens.labels("read").inc(event.prompt)
        self._tokens.labels("made").inc(event.made)
        self._waited_s.observe(event.waited_s)
        self._ran_s.observe(event.ran_s)

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
            case _:
                pass

    def text(self, blob_sizes: Sequence[int]) -> bytes:
        """Return everything in the text format; ``blob_sizes`` is what the disk holds now."""
        self._looked.blob_sizes = blob_sizes
        return generate_latest(self.registry)


class _Looked:
    """What is not counted but looked up when asked."""

    def __init__(self, store: Store, fills: Fills, turns: Turns, pool: Pool) -> None:
        self._store = store
        self._fills = fills
        self._turns = turns
        self._pool = pool
        self.blob_sizes: Sequence[int] = ()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges of this moment."""
        fills = self._fills.in_flight
        by_state = GaugeMetricFamily("mirror_store_bytes", "Bytes on disk by state.", labels=["state"])
        by_state.add_metric(["proven"], sum(self.blob_sizes))
        by_state.add_metric(["partial"], sum(self._store.room.partials().values()))
        by_state.add_metric(["quarantine"], self._store.room.aside())
        by_state.add_metric(["promised"], sum(self._store.room.coming.values()))
        yield by_state
        with suppress(StoreError):  # a disk that cannot be asked must not take the other figures along
            limit = self._store.room.limits().size
            if limit is not None:
                yield GaugeMetricFamily("mirror_store_limit_bytes", "Most that the store may hold.", value=limit)
        damaged = len(self._store.damaged_models())
        yield GaugeMetricFamily("mirror_store_damaged_models", "Models that lack a damaged blob.", value=damaged)
        yield GaugeMetricFamily("mirror_store_blobs", "Proven blobs.", value=len(self.blob_sizes))
        yield GaugeMetricFamily("mirror_store_models", "Complete models.", value=len(self._store.complete))
        yield GaugeMetricFamily("mirror_fill_inflight", "Fills that run.", value=len(fills))
        yield GaugeMetricFamily("mirror_fill_readers", "Readers of fills.", value=sum(one.readers for one in fills))
        waiting = self._turns.waiting
        yield GaugeMetricFamily("mirror_queue_depth", "Requests that wait for a turn.", value=waiting)
        up = GaugeMetricFamily("mirror_node_up", "Ollamas that can be used.", labels=["node"])
        active = GaugeMetricFamily("mirror_node_active", "Requests that run on an Ollama.", labels=["node"])
        for one in self._pool:
            up.add_metric([one.id], self._pool.usable(one))
            active.add_metric([one.id], one.active)
        yield up
        yield active
