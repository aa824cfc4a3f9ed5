"""The kinds of text a setting may be, apart from units: addresses, hosts, paths, lists, secrets and choices."""

import ipaddress
import json
import re
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import core_schema

from mirror.config.rates import parse_rates, render_rates
from mirror.values import InvalidModelName, InvalidPattern, InvalidWindow, ModelName, NamePattern
from mirror.values.rates import Rates

_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)
_BY_TIME = ["20MB/s", "5MB/s Mon-Fri 08:00-18:00", "none 22:00-06:00"]


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogFormat(StrEnum):
    """How a log line looks; auto is console on a terminal and json elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class PrivateRedirects(StrEnum):
    """Whether an upstream may send us to a private address; auto allows it to an upstream that is private itself."""

    AUTO = "auto"
    ALLOW = "allow"
    REFUSE = "refuse"


class PullMode(StrEnum):
    """What becomes of a pull that an Ollama's client asks for: it is queued, done now, or queued and waited for."""

    QUEUE = "queue"
    NOW = "now"
    WAIT = "wait"


class Fairness(StrEnum):
    """What users get an even share of."""

    COST = "cost"
    TURNS = "turns"


class Run(StrEnum):
    """When a prompt may be begun: at once, while nobody else wants an Ollama, or while a window is open."""

    NOW = "now"
    IDLE = "idle"
    WINDOW = "window"


class Delivery(StrEnum):
    """How a model gets from the store to an Ollama: auto links where it can, else the Ollama pulls it from here."""

    AUTO = "auto"
    PULL = "pull"
    LINK = "link"
    NONE = "none"


def without_credentials(text: str) -> str:
    """Return ``text`` with the user and password of a URL in it replaced by ``***``."""
    return _CREDENTIALS.sub("://***@", text)


def web_url(text: str) -> str:
    """Return an absolute http(s) URL without its trailing slash. Raises ValueError."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be a URL of printable ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("must be an http or https URL with a valid host and port") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be an absolute http or https URL, such as https://registry.ollama.ai")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or fragment")
    return text.rstrip("/")


def _backend(text: str) -> str:
    if text.lower() in ("auto", "none"):
        return text.lower()
    try:
        return web_url(text.removesuffix("/api/generate"))  # as an older program has it
    except ValueError as error:
        raise ValueError(
            f"must be auto, none, or the URL of an Ollama, such as http://127.0.0.1:11435: {error}"
        ) from None


def _host(text: str) -> str:
    try:
        return ModelName(text, "library", "x", "latest").host
    except InvalidModelName as error:
        raise ValueError(f"must be {error.accepted}") from error


def _printable(text: str) -> str:
    # A line break would end a header or a log line early.
    if not text.strip() or not text.isprintable():
        raise ValueError("must not be empty and must be printable")
    return text


def _path(value: object) -> object:
    if isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise ValueError("must be a path, not empty and printable")
    return value


def _named(path: Path) -> Path:
    # The state folder stands beside the store as NAME.state, so there must be a name.
    if path.name in ("", ".."):
        raise ValueError("must end in the name of a folder, not in '.', '..' or '/'")
    return path


def _items(value: object) -> object:
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        if isinstance(found := json.loads(value), list):
            return found
    return [item.strip() for item in value.split(",") if item.strip()]


def _pattern(text: str) -> str:
    try:
        return str(NamePattern.parse(text))
    except InvalidPattern as error:
        raise ValueError(f"must be {error.accepted}") from error


def _secret(secret: SecretStr) -> SecretStr:
    # An empty key would let everybody in, and HTTP drops the spaces around a header's value.
    text = secret.get_secret_value()
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("must not be empty, must be printable and must not begin or end with a space")
    return secret


def _database_url(text: str) -> str:
    if not re.match(r"[a-z][a-z0-9+_]*://", text):
        raise ValueError(
            "must be a database URL, such as sqlite+aiosqlite:///mirror.db or postgresql+asyncpg://host/name"
        )
    return text


def _database_shown(url: str) -> str:
    # A driver takes a password among its options too.
    return re.sub(r"\?.*", "?***", without_credentials(url), flags=re.DOTALL)


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 address stands in brackets. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s\[\]:/@]+)):(\d{1,5})", text, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be an address and a port, such as 0.0.0.0:443 or [::]:443")
    return match[1] or match[2], int(match[3])


def _address(text: str) -> str:
    split_address(text)
    return text


def _tunnel(text: str) -> str:
    if not re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.*?-]+)(?::(?:\d{1,5}|\*))?", text, re.ASCII):
        raise ValueError("must be a host, or a pattern of hosts, such as *.ollama.com, github.com:443 or nas.lan:*")
    return text.lower()


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.1 or 10.0.0.0/8") from None


def _policy_pattern(text: str) -> str:
    try:
        return str(NamePattern.parse(text, any_tag=True))
    except InvalidPattern as error:
        raise ValueError(f"must be {error.accepted}") from error


def _anonymous(said: tuple[str, ...]) -> tuple[str, ...]:
    if said not in (("auto",), ("none",)) and (not said or set(said) - {"pull", "api"}):
        raise ValueError("must be auto, none, or a list of pull and api")
    return said


def _origin(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/]*", text, re.IGNORECASE | re.ASCII):
        raise ValueError("must be an origin without a path, such as https://chat.lan or http://*.lan:8080")
    return text.lower()


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_*?-]{1,80}", text, re.ASCII):
        raise ValueError("must be a namespace, or a pattern of namespaces, such as bartowski or hf-*")
    return text.lower()


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", text, re.ASCII):
        raise ValueError("must be a short name of lower-case letters, digits, '_' and '-'")
    return text


def _window(text: str) -> str:
    from mirror.values.window import parse_window  # commands that need no windows need not load cron

    try:
        return str(parse_window(text))
    except InvalidWindow as error:
        raise ValueError(f"must be {error.accepted}") from error


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("must be a time zone, such as Europe/Berlin") from None


def rows_of_text(value: object) -> object:
    """Return what a text says as JSON, for lists of groups that come from the environment; else the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("must be a list of groups; as a text, in JSON") from None


def pairs_of_text(value: object) -> object:
    """Return the pairs of a mapping, also of one that a text says, as ``ann=2, batch=0.5`` or in JSON."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        pairs = [one.partition("=") for one in value.split(",") if one.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError("must be pairs such as name=value, with commas between them, or JSON")
        value = {name.strip(): said.strip() for name, _, said in pairs}
    said = rows_of_text(value)
    return tuple(said.items()) if isinstance(said, dict) else said


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_printable)]
WebUrl = Annotated[str, AfterValidator(web_url)]
Backend = Annotated[str, AfterValidator(_backend)]
Host = Annotated[str, AfterValidator(_host)]
AnyPath = Annotated[Path, BeforeValidator(_path)]
NamedFolder = Annotated[AnyPath, AfterValidator(_named)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_items)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(_items)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_items)]
Folders = Annotated[tuple[AnyPath, ...], BeforeValidator(_items)]
PolicyPatterns = Annotated[tuple[Annotated[str, AfterValidator(_policy_pattern)], ...], BeforeValidator(_items)]
Namespaces = Annotated[tuple[Annotated[str, AfterValidator(_namespace)], ...], BeforeValidator(_items)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_items)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_items)]
Anonymous = Annotated[tuple[str, ...], AfterValidator(_anonymous), BeforeValidator(_items)]
Windows = Annotated[tuple[Annotated[str, AfterValidator(_window)], ...], BeforeValidator(_items)]
Zone = Annotated[str, AfterValidator(_zone)]
RatesOf = Annotated[
    Rates,
    GetPydanticSchema(lambda _kind, _handler: core_schema.no_info_plain_validator_function(parse_rates)),
    BeforeValidator(_items),
    PlainSerializer(render_rates, return_type=str | list[str], when_used="json"),
    WithJsonSchema({"type": ["string", "number", "array"], "examples": ["20MB/s", _BY_TIME]}),
]
Name = Annotated[str, AfterValidator(_name)]
Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_items)]
Tunnels = Annotated[tuple[Annotated[str, AfterValidator(_tunnel)], ...], BeforeValidator(_items)]
Secret = Annotated[
    SecretStr, AfterValidator(_secret), PlainSerializer(lambda _: "***", return_type=str, when_used="json")
]
DatabaseUrl = Annotated[
    str, AfterValidator(_database_url), PlainSerializer(_database_shown, return_type=str, when_used="json")
]
Level = Annotated[LogLevel, BeforeValidator(_upper)]
Format = Annotated[LogFormat, BeforeValidator(_lower)]
FairnessOf = Annotated[Fairness, BeforeValidator(_lower)]
RunOf = Annotated[Run, BeforeValidator(_lower)]
Weights = Annotated[
    tuple[tuple[Text, Annotated[float, Field(gt=0, le=1000)]], ...],
    BeforeValidator(pairs_of_text),
    PlainSerializer(dict, return_type=dict[str, float]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number"}}),
]
Aliases = Annotated[
    tuple[tuple[Text, Text], ...],
    BeforeValidator(pairs_of_text),
    PlainSerializer(dict, return_type=dict[str, str]),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
Mode = Annotated[PullMode, BeforeValidator(_lower)]
DeliveryWay = Annotated[Delivery, BeforeValidator(_lower)]
Redirects = Annotated[PrivateRedirects, BeforeValidator(_lower)]
