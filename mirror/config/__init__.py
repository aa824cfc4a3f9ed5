"""This room holds every setting, its default, its unit and its names, and joins file, environment and flags.

It reads the file it is given and the files that ``OLLAMA_MIRROR_*_FILE`` name, once, and touches nothing else: the
environment comes in as an argument, paths are not resolved or looked at, and no other room is imported but
``values`` and ``errors``. Each part of the mirror takes its own frozen section, never the whole.
"""

from mirror.config.groups import BackendGroup, Destination, FurtherUpstream, PolicyRule
from mirror.config.kinds import Delivery, Fairness, LogFormat, LogLevel, PrivateRedirects, PullMode, Run
from mirror.config.loading import SYSTEM_FILE, Loaded, find_file, load, server_url
from mirror.config.prompts import PromptSettings
from mirror.config.pulls import PullSettings
from mirror.config.reference import reference
from mirror.config.rows import NOT_YET, Row, not_yet, rows, schema
from mirror.config.sections import (
    CacheSettings,
    DatabaseSettings,
    FeatureSettings,
    ListenSettings,
    LoggingSettings,
    SecuritySettings,
    ServerSettings,
    Settings,
    UpstreamSettings,
    changed_keys,
)
from mirror.config.serving import DispatchSettings, HubSettings, ProxySettings
from mirror.config.units import (
    Share,
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
    render_duration,
    render_rate,
    render_size,
)

__all__ = [
    "NOT_YET",
    "SYSTEM_FILE",
    "BackendGroup",
    "CacheSettings",
    "DatabaseSettings",
    "Delivery",
    "Destination",
    "DispatchSettings",
    "Fairness",
    "FeatureSettings",
    "FurtherUpstream",
    "HubSettings",
    "ListenSettings",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "LoggingSettings",
    "PolicyRule",
    "PrivateRedirects",
    "PromptSettings",
    "ProxySettings",
    "PullMode",
    "PullSettings",
    "Row",
    "Run",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "Share",
    "UpstreamSettings",
    "changed_keys",
    "find_file",
    "load",
    "not_yet",
    "parse_count",
    "parse_duration",
    "parse_rate",
    "parse_size",
    "reference",
    "render_duration",
    "render_rate",
    "render_size",
    "rows",
    "schema",
    "server_url",
]
