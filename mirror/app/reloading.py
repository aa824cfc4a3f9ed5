"""Settings read again while the mirror serves: what can change does, and of the rest it is said that it has not."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from mirror.access import Policy
from mirror.app.logs import reopen_files
from mirror.app.parts import Parts
from mirror.app.pulling import windows_of
from mirror.config import Settings, changed_keys
from mirror.errors import MirrorError, SettingsError
from mirror.values import Invalid
from mirror.web import Gate

log = structlog.get_logger(__name__)

Apply = Callable[[Parts, Gate, Settings], None]


def _limits(parts: Parts, _: Gate, new: Settings) -> None:
    keys = [key.partition(".")[2] for key, apply in LIVE.items() if apply is _limits]
    parts.keeper.change({key: getattr(new.cache, key) for key in keys})


def _rules(parts: Parts, _: Gate, new: Settings) -> None:
    routes = parts.upstreams.routes
    parts.admission.change(Policy.of(new.security, new.upstream.host, routes.filed_pattern))


def _frequency(_: Parts, gate: Gate, new: Settings) -> None:
    gate.change_limit(new.security.rate_limit_requests, new.security.rate_limit_window)


def _windows(parts: Parts, _: Gate, new: Settings) -> None:
    parts.worker.change(windows_of(new))


def _rates(parts: Parts, _: Gate, new: Settings) -> None:
    parts.pace.change(upstream=new.upstream.rate, ahead=new.pulls.rate)


def _turns(parts: Parts, _: Gate, new: Settings) -> None:
    parts.turns.change(dict(new.dispatch.weights), new.dispatch.timeout)


def _level(_: Parts, _gate: Gate, new: Settings) -> None:
    logging.getLogger().setLevel(new.logging.level.value)


LIVE: Mapping[str, Apply] = {
    "cache.max_size": _limits,
    "cache.min_free": _limits,
    "cache.low_water": _limits,
    "cache.retention": _limits,
    "cache.loose_retention": _limits,
    "cache.partial_retention": _limits,
    "cache.cleanup_interval": _limits,
    "security.rules": _rules,
    "security.allowed_models": _rules,
    "security.blocked_models": _rules,
    "security.rate_limit_requests": _frequency,
    "security.rate_limit_window": _frequency,
    "pulls.windows": _windows,
    "pulls.rate": _rates,
    "upstream.rate": _rates,
    "dispatch.weights": _turns,
    "dispatch.timeout": _turns,
    "logging.level": _level,
}
"""What can change while the mirror serves. Keys, pins of people and certificates are read again by themselves."""


@dataclass(slots=True)
class Reloading:
    """Applies settings that are read again by ``read``. For the event loop's thread."""

    parts: Parts
    gate: Gate
    read: Callable[[], Settings]
    _in_force: Settings = field(init=False)

    def __post_init__(self) -> None:
        self._in_force = self.parts.settings

    def reload(self) -> None:
        """Read, and apply what can change. Settings that are wrong change nothing; the log says what is.

        Log files are opened anew in any case.
        """
        reopen_files()
        try:
            new = self.read()
            changed = changed_keys(self._in_force, new)
            for apply in dict.fromkeys(LIVE[key] for key in changed if key in LIVE):
                apply(self.parts, self.gate, new)
        except (SettingsError, MirrorError, Invalid) as error:
            log.warning("settings not reloaded", problem=str(error))
            return
        self._in_force = new
        applied = [key for key in changed if key in LIVE]
        waiting = [key for key in changed_keys(self.parts.settings, new) if key not in LIVE]
        log.info("settings reloaded", applied=applied, need_a_restart=waiting)
