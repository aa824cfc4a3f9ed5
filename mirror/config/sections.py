"""Every setting with its default and one line on it; nothing else in the project has defaults of its own."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import get_args, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

from mirror.config.groups import Backends, Credentials, Destinations, FurtherUpstream, Rules, Section, Upstreams
from mirror.config.kinds import (
    Address,
    Addresses,
    Anonymous,
    AnyPath,
    DatabaseUrl,
    Folders,
    Format,
    Host,
    Hosts,
    Level,
    LogFormat,
    LogLevel,
    NamedFolder,
    Networks,
    Origins,
    Patterns,
    PolicyPatterns,
    PrivateRedirects,
    RatesOf,
    Redirects,
    Secret,
    Text,
    Tunnels,
    WebUrl,
)
from mirror.config.prompts import PromptSettings
from mirror.config.pulls import PullSettings
from mirror.config.serving import DispatchSettings, HubSettings, ProxySettings
from mirror.config.units import ByteSize, Duration, Rate, Share, ShareOf, SizeOrShare


class ServerSettings(Section):
    """Where the mirror listens."""

    host: Text = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104  # a LAN service
    port: int = Field(11434, ge=0, le=65535, description="Port to listen on; 0 lets the system choose one.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that send blobs: 1 is the mirror itself, more help it with long ones."
    )
    shutdown: Duration = Field(30.0, description="Time that running answers get to end when the mirror stops.")
    public_url: WebUrl | None = Field(
        None, description="URL under which clients reach the mirror, if not host and port."
    )
    names: Hosts = Field((), description="Further host names by which clients call the mirror.")


class ListenSettings(Section):
    """The front door: plain HTTP, TLS and CONNECT on every port, and what bounds a connection."""

    addresses: Addresses = Field(
        (), description="Addresses to listen on, such as 0.0.0.0:443; none are server.host and server.port."
    )
    data: Address | None = Field(
        None, description="Further address for the bytes of blobs alone, by plain HTTP; clients are pointed to it."
    )
    data_url: WebUrl | None = Field(
        None, description="URL under which clients reach that address, if not by the name they used and its port."
    )
    tunnel: Tunnels = Field(
        (), description="Other hosts that CONNECT may lead to, such as github.com or *.ollama.com:443."
    )
    max_connections: int = Field(
        4096, ge=16, le=1_000_000, description="Connections at once; above, the longest idle one makes room."
    )
    head_timeout: Duration = Field(
        15.0, gt=0, description="Time for a TLS handshake, and for the head of a connection's first request."
    )
    idle_timeout: Duration = Field(75.0, gt=0, description="A connection without a request for so long is closed.")
    max_head: ByteSize = Field(32_768, ge=1024, description="Most bytes that the head of a request has.")
    certificate: AnyPath | None = Field(
        None, description="PEM file of a certificate and its chain for the mirror's own names."
    )
    key: AnyPath | None = Field(None, description="PEM file of that certificate's key; null is in the same file.")


class CacheSettings(Section):
    """What is kept on disk, where and how long."""

    directory: NamedFolder = Field(Path("./cache"), description="Folder of the store; Ollama can read it as its own.")
    state: AnyPath | None = Field(
        None, description="Folder of keys, database and partial blobs; null is DIRECTORY.state."
    )
    max_size: ByteSize | None = Field(None, gt=0, description="Most that the store may hold; null is no limit.")
    min_free: SizeOrShare | None = Field(None, description="Size or share (5%) of the disk that stays free.")
    low_water: ShareOf = Field(
        Share(90.0), description="Share of max_size to which models are removed once it is passed; so for min_free."
    )
    pinned: Patterns = Field((), description="Models that are never removed, such as llama3.2 or qwen3:*.")
    retention: Duration | None = Field(
        None, gt=0, description="Models unused for so long are removed; null keeps them."
    )
    loose_retention: Duration = Field(86_400.0, description="Blobs that no model names are removed after so long.")
    partial_retention: Duration = Field(
        604_800.0, description="Unfinished and damaged blobs untouched for so long are removed."
    )
    cleanup_interval: Duration = Field(3600.0, gt=0, description="Time between two looks for what may be removed.")
    scrub_interval: Duration = Field(2_592_000.0, description="Time in which every blob is hashed again; 0 never does.")
    scrub_rate: Rate = Field(20_000_000, gt=0, description="Bytes per second that are hashed again.")
    shared_with_ollama: bool = Field(False, description="An Ollama on this machine has the store as its OLLAMA_MODELS.")
    drop_ollama_models: bool = Field(False, description="Remove also models that such an Ollama brought in itself.")
    also_from: Folders = Field((), description="Folders of other Ollamas whose models are served too, and not changed.")
    manifest_ttl: Duration = Field(
        300.0, description="A stored manifest is served for so long without asking upstream."
    )
    negative_ttl: Duration = Field(
        60.0, description="The upstream's word that it lacks a model is believed for so long."
    )
    stale_hold: Duration = Field(
        30.0, description="After a failed refresh the stored manifest is served without asking for so long."
    )
    keep_filling: bool = Field(True, description="Go on filling a blob after its last reader left.")

    @property
    def state_directory(self) -> Path:
        """The state folder: ``state``, or the one beside the store."""
        return self.state or self.directory.with_name(f"{self.directory.name}.state")


class UpstreamSettings(Credentials):
    """The registry above, and how it is asked."""

    url: WebUrl = Field("https://registry.ollama.ai", description="Registry to fetch from; a path prefix is allowed.")
    host: Host = Field("registry.ollama.ai", description="Host under which the upstream's models are filed.")
    timeout: Duration = Field(
        300.0, gt=0, description="Whole time for one small answer, such as a manifest or a token."
    )
    stale_timeout: Duration = Field(
        5.0, gt=0, description="Whole time for an answer that a stored copy can stand in for."
    )
    connect_timeout: Duration = Field(10.0, gt=0, description="Time for a connection to open.")
    stall_timeout: Duration = Field(20.0, gt=0, description="A connection without a byte for so long is given up.")
    connections: int = Field(16, ge=1, le=64, description="Connections for one blob.")
    max_connections: int = Field(48, ge=1, le=512, description="Connections to the upstream all together.")
    max_concurrent_downloads: int = Field(3, ge=1, description="Models prefetched at once.")
    retry_attempts: int = Field(3, ge=0, le=20, description="Further tries in a row without a byte before giving up.")
    retry_delay: Duration = Field(1.0, description="Wait before the first further try.")
    rate: RatesOf | None = Field(
        None, description="Bytes per second from upstream: 20MB/s, or by time: [20MB/s, 5MB/s Mon-Fri 08:00-18:00]."
    )
    user_agent: Text = Field(
        "ollama/0.33.0 (amd64 linux) Go/go1.26.8", description="User-Agent that the upstream is told."
    )
    key_file: AnyPath | None = Field(
        None, description="The mirror's ed25519 key; null is id_ed25519 in the state folder."
    )
    realms: Hosts = Field((), description="Further hosts that may hand out tokens.")
    private_redirects: Redirects = Field(
        PrivateRedirects.AUTO, description="Redirects to private addresses: auto, allow or refuse."
    )


class SecuritySettings(Section):
    """Who may ask for what."""

    api_key: Secret | None = Field(None, description="Key that clients must show; null asks for none.")
    anonymous: Anonymous = Field(
        ("auto",), description="What needs no key: pull, api, none; auto is what no key was ever made for."
    )
    token_ttl: Duration = Field(3600.0, gt=0, description="Time for which a token is good that an Ollama's key got.")
    ticket_ttl: Duration = Field(86_400.0, gt=0, description="Time in which a pull may read the blob it has asked for.")
    allowed_models: PolicyPatterns = Field((), description="Models that may be served; none listed allows all.")
    blocked_models: PolicyPatterns = Field((), description="Models that are never served.")
    rules: Rules = Field((), description="Rules on models before those lists; the first that applies decides.")
    rate_limit_requests: int | None = Field(None, ge=1, description="Requests per client and window; null is no limit.")
    rate_limit_window: Duration = Field(60.0, gt=0, description="Window in which a client's requests are counted.")
    trusted_proxies: Networks = Field((), description="Proxies whose X-Forwarded-For and -Proto are believed.")
    origins: Origins = Field((), description="Further web pages that may use the API, such as https://chat.lan.")


class LoggingSettings(Section):
    """What is logged and where to."""

    level: Level = Field(LogLevel.INFO, description="Least level that is logged: DEBUG, INFO, WARNING or ERROR.")
    format: Format = Field(
        LogFormat.AUTO, description="Look of a line: auto, console or json; auto is console on a terminal."
    )
    file: AnyPath | None = Field(None, description="File to log to; null is standard error.")
    max_file_size: ByteSize = Field(10_000_000, gt=0, description="Size at which the log file is put aside.")
    backup_count: int = Field(5, ge=0, description="Log files put aside that are kept.")
    access: bool = Field(True, description="Log one line per request.")


class FeatureSettings(Section):
    """Which faces are shown."""

    enable_api_proxy: bool = Field(True, description="Answer /api and /v1 in front of an Ollama.")
    enable_tracing: bool = Field(
        False, description="Send traces of requests by OpenTelemetry, to where the OTEL_ variables say (extra otel)."
    )
    enable_metrics: bool = Field(True, description="Answer /metrics.")
    enable_web_ui: bool = Field(True, description="Answer with web pages.")


class DatabaseSettings(Section):
    """Where what is not a model is kept."""

    url: DatabaseUrl | None = Field(
        None, repr=False, description="Database URL; null is SQLite in mirror.db in the state folder."
    )


class Settings(Section):
    """All settings; each part of the mirror is given its own section only."""

    offline: bool = Field(False, description="Serve only what is stored; never ask upstream.")
    hf_token: Secret | None = Field(None, description="Token for Hugging Face, and nobody else; also HF_TOKEN.")
    upstreams: Upstreams = Field(
        (FurtherUpstream(name="huggingface"),),  # type: ignore[call-arg]  # the name brings the rest
        description="Further registries, each with a name, a url and hosts; the list replaces the default.",
    )
    server: ServerSettings = Field(ServerSettings(), description="Where the mirror listens.")
    listen: ListenSettings = Field(ListenSettings(), description="How connections are taken, and what bounds them.")
    cache: CacheSettings = Field(CacheSettings(), description="What is kept on disk, where and how long.")
    upstream: UpstreamSettings = Field(UpstreamSettings(), description="The registry above, and how it is asked.")
    proxy: ProxySettings = Field(ProxySettings(), description="The Ollama that stands behind /api and /v1.")
    dispatch: DispatchSettings = Field(DispatchSettings(), description="Whose turn it is on the Ollamas.")
    hub: HubSettings = Field(HubSettings(), description="Nodes that tell by heartbeats that they run an Ollama.")
    pulls: PullSettings = Field(
        PullSettings(), description="The queue of pulls, which is worked off in the quiet hours."
    )
    prompts: PromptSettings = Field(
        PromptSettings(), description="Prompts that are taken at once, and answered in their turn."
    )
    security: SecuritySettings = Field(SecuritySettings(), description="Who may ask for what.")
    logging: LoggingSettings = Field(LoggingSettings(), description="What is logged and where to.")
    features: FeatureSettings = Field(FeatureSettings(), description="Which faces are shown.")
    database: DatabaseSettings = Field(DatabaseSettings(), description="Where what is not a model is kept.")


SECTIONS: Mapping[str, type[Section]] = MappingProxyType(
    {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
)
"""The sections by name."""

_OWNERS: Mapping[str, type[Section]] = {
    **{name: Settings for name in Settings.model_fields if name not in SECTIONS},
    **{f"{section}.{name}": model for section, model in SECTIONS.items() for name in model.model_fields},
}

FIELDS: Mapping[str, FieldInfo] = MappingProxyType(
    {key: model.model_fields[key.rpartition(".")[2]] for key, model in _OWNERS.items()}
)
"""Every setting by its dotted key, in the order of this file."""


def is_a(key: str, kind: object) -> bool:
    """Say whether the setting ``key`` is of ``kind``, one of the annotated types, or may be."""
    hint = get_type_hints(_OWNERS[key], include_extras=True)[key.rpartition(".")[2]]
    return hint == kind or kind in get_args(hint)


def is_a_list_of_groups(key: str) -> bool:
    """Say whether the setting ``key`` is a list of groups of settings, where a problem lies at some depth."""
    return any(is_a(key, kind) for kind in (Upstreams, Rules, Destinations, Backends))


def value_of(settings: Settings, key: str) -> object:
    """Return the value of the setting ``key``."""
    section, _, name = key.rpartition(".")
    value: object = getattr(getattr(settings, section) if section else settings, name)
    return value


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Return the keys whose values differ, in the order of the settings."""
    return [key for key in FIELDS if value_of(old, key) != value_of(new, key)]
