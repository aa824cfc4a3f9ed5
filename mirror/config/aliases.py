"""Every name by which a setting may be called: its dotted key, names with a unit, and those of older programs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from mirror.config.sections import FIELDS, SECTIONS, is_a
from mirror.config.units import ByteSize, Duration

PREFIX = "OLLAMA_MIRROR_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
SERVER_VARIABLE = f"{PREFIX}SERVER"
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, SERVER_VARIABLE})
"""Variables that commands read: which file to load, which running mirror to talk to."""

_DURATION_ENDINGS = {"_s": "s", "_days": "d"}
_SIZE_ENDINGS = {"_mb": "MB", "_gb": "GB"}

_SHORT_VARIABLES = {
    "HOST": "server.host",
    "PORT": "server.port",
    "WORKERS": "server.workers",
    "MAX_CONCURRENT_DOWNLOADS": "upstream.max_concurrent_downloads",
    "RETRY_ATTEMPTS": "upstream.retry_attempts",
    "RETRY_DELAY": "upstream.retry_delay",
    "API_KEY": "security.api_key",
    "ALLOWED_MODELS": "security.allowed_models",
    "BLOCKED_MODELS": "security.blocked_models",
    "RATE_LIMIT_REQUESTS": "security.rate_limit_requests",
    "RATE_LIMIT_WINDOW": "security.rate_limit_window",
    "LOG_LEVEL": "logging.level",
    "LOG_FILE": "logging.file",
}


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for the setting ``key``; ``unit`` is what a bare number under that name is counted in.

    ``always`` is what the setting is to be, where the name means that whatever value it has.
    """

    key: str
    unit: str = ""
    always: str = ""

    def value(self, given: object) -> object:
        """Return what the setting ``key`` is to be; a text that brings its own unit stays as it is."""
        if self.always:
            return self.always
        if self.unit and isinstance(given, str) and re.fullmatch(r"\s*[0-9.]+\s*", given):
            return f"{given}{self.unit}"
        return given


FOREIGN: Mapping[str, Alias] = MappingProxyType(
    {
        "HF_TOKEN": Alias("hf_token"),
        "OLLAMA_BACKEND": Alias("proxy.backend"),
        "OLLAMA_URL": Alias("proxy.backend"),
        "OLLAMA_MODEL": Alias("prompts.model"),
        "OLLAMA_PROXY_QUIET": Alias("logging.access", always="false"),
        "LISTEN_PORT": Alias("server.port"),
        "RATE_LIMIT": Alias("pulls.daily_limit"),
        "DISK_THRESHOLD": Alias("pulls.disk_threshold", "%"),
        "DISK_PATH": Alias("pulls.disk_path"),
        "CLEANUP_DAYS": Alias("pulls.history", "d"),
        "TIMEOUT": Alias("dispatch.timeout", "s"),
        "HEARTBEAT_TTL_SECONDS": Alias("hub.heartbeat_ttl", "s"),
        "HEARTBEAT_OFFLINE_SECONDS": Alias("hub.heartbeat_offline", "s"),
        "NODE_MAX_FAILURES": Alias("dispatch.max_failures"),
        "NODE_REQUEST_TIMEOUT": Alias("hub.request_timeout", "s"),
    }
)
"""Variables of other programs that say one of our settings; all but the first are those of older proxies and hubs."""


def _with_units() -> dict[str, Alias]:
    kinds = ((Duration, _DURATION_ENDINGS), (ByteSize, _SIZE_ENDINGS))
    return {
        f"{key}{ending}": Alias(key, unit)
        for key in FIELDS
        for kind, endings in kinds
        if is_a(key, kind)
        for ending, unit in endings.items()
    }


def _variable(name: str) -> str:
    return PREFIX + name.replace(".", "_").upper()


NAMES: Mapping[str, Alias] = MappingProxyType(
    {**_with_units(), "cache.dir": Alias("cache.directory"), **{key: Alias(key) for key in FIELDS}}
)
"""Every dotted name that a file may use."""

VARIABLES: Mapping[str, Alias] = MappingProxyType(
    {
        **FOREIGN,
        **{_variable(name): Alias(key) for name, key in _SHORT_VARIABLES.items()},
        **{_variable(name): alias for name, alias in NAMES.items()},
    }
)
"""Every variable of the environment that is a setting; each may also be called NAME_FILE."""


def unknown_key(name: str) -> str:
    """Return what to say of a dotted name that no setting has."""
    same_ending = [key for key in FIELDS if key.rpartition(".")[2] == name.rpartition(".")[2]]
    return _unknown(same_ending or get_close_matches(name, [*FIELDS, *SECTIONS, *NAMES], n=1))


def unknown_variable(name: str) -> str:
    """Return what to say of a variable that no setting has."""
    return _unknown(get_close_matches(name, [*VARIABLES, *NOT_SETTINGS], n=1))


def _unknown(close: list[str]) -> str:
    return f"there is no such setting; did you mean {close[0]}?" if close else "there is no such setting"
