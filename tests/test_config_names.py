"""Every name of every setting: dotted keys, variables, names with units and those of older programs."""

from itertools import groupby
from pathlib import Path

import pytest

from mirror.config import (
    BackendGroup,
    Delivery,
    Destination,
    Fairness,
    FurtherUpstream,
    PolicyRule,
    PullMode,
    Run,
    Settings,
    load,
)
from mirror.config.aliases import NAMES, NOT_SETTINGS, VARIABLES
from mirror.config.rates import parse_rates
from mirror.config.sections import FIELDS, value_of
from mirror.config.units import Share
from mirror.errors import SettingsError
from mirror.values.rates import Rates

SAMPLES = {
    "offline": ("true", True),
    "server.host": ("127.0.0.1", "127.0.0.1"),
    "server.port": ("0", 0),
    "server.workers": ("3", 3),
    "server.shutdown": ("5s", 5),
    "server.public_url": ("https://mirror.lan/ollama/", "https://mirror.lan/ollama"),
    "upstreams": (
        '[{"name": "lan", "url": "http://hub.lan", "hosts": ["hub.lan"]}]',
        (FurtherUpstream(name="lan", url="http://hub.lan", hosts=("hub.lan",)),),
    ),
    "server.names": ("models.lan, ollama.lab", ("models.lan", "ollama.lab")),
    "listen.data": ("0.0.0.0:11436", "0.0.0.0:11436"),
    "listen.data_url": ("http://10.0.0.5:11436", "http://10.0.0.5:11436"),
    "listen.addresses": ("127.0.0.1:443, [::1]:443", ("127.0.0.1:443", "[::1]:443")),
    "listen.tunnel": ("files.*.Lan, nas.lan:*", ("files.*.lan", "nas.lan:*")),
    "listen.max_connections": ("64", 64),
    "listen.head_timeout": ("5s", 5.0),
    "listen.idle_timeout": ("2m", 120.0),
    "listen.max_head": ("64KiB", 65536),
    "listen.certificate": ("/etc/mirror/cert.pem", Path("/etc/mirror/cert.pem")),
    "listen.key": ("/etc/mirror/key.pem", Path("/etc/mirror/key.pem")),
    "cache.directory": ("/srv/models", Path("/srv/models")),
    "cache.state": ("/srv/state", Path("/srv/state")),
    "cache.max_size": ("100GB", 100 * 10**9),
    "cache.min_free": ("50GB", 50 * 10**9),
    "cache.low_water": ("80%", Share(80)),
    "cache.pinned": ("llama3.2, qwen3:*", ("llama3.2", "qwen3:*")),
    "cache.retention": ("30d", 30 * 86_400),
    "cache.loose_retention": ("2h", 7200),
    "cache.scrub_interval": ("7d", 7 * 86_400),
    "cache.scrub_rate": ("5MB/s", 5_000_000),
    "cache.shared_with_ollama": ("true", True),
    "cache.drop_ollama_models": ("true", True),
    "cache.also_from": ("/usr/share/ollama, /srv/ollama", (Path("/usr/share/ollama"), Path("/srv/ollama"))),
    "cache.cleanup_interval": ("3601", 3601),
    "cache.partial_retention": ("1d", 86_400),
    "cache.manifest_ttl": ("0", 0),
    "cache.negative_ttl": ("2m", 120),
    "cache.stale_hold": ("250ms", 0.25),
    "cache.keep_filling": ("no", False),
    "upstream.username": ("mirror", "mirror"),
    "upstream.url": ("http://127.0.0.1:5000/prefix/", "http://127.0.0.1:5000/prefix"),
    "upstream.host": ("hub.lan:5000", "hub.lan:5000"),
    "upstream.timeout": ("1m", 60),
    "upstream.stale_timeout": ("1s", 1),
    "upstream.connect_timeout": ("3", 3),
    "upstream.stall_timeout": ("15s", 15),
    "upstream.connections": ("64", 64),
    "upstream.max_connections": ("512", 512),
    "upstream.max_concurrent_downloads": ("5", 5),
    "upstream.retry_attempts": ("0", 0),
    "upstream.retry_delay": ("0.5", 0.5),
    "upstream.rate": ("20MB/s, 5MB/s Mon-Fri 8:00-18:00", parse_rates(["20MB/s", "5MB/s Mon-Fri 8:00-18:00"])),
    "upstream.user_agent": ("test/1", "test/1"),
    "upstream.key_file": ("/etc/key", Path("/etc/key")),
    "upstream.realms": ("ollama.com, auth.lan:81,", ("ollama.com", "auth.lan:81")),
    "upstream.private_redirects": ("Refuse", "refuse"),
    "proxy.backend": ("http://10.0.0.7:11434/", "http://10.0.0.7:11434"),
    "proxy.connect_timeout": ("2s", 2),
    "proxy.max_body": ("1MB", 1_000_000),
    "proxy.backends": ("http://gpu1:11434", (BackendGroup(url="http://gpu1:11434"),)),
    "dispatch.fairness": ("Turns", Fairness.TURNS),
    "dispatch.slots": ("4", 4),
    "dispatch.timeout": ("1m", 60),
    "dispatch.max_waiting": ("100", 100),
    "dispatch.max_waiting_per_user": ("10", 10),
    "dispatch.weights": ("ann=2, batch=0.5", (("ann", 2.0), ("batch", 0.5))),
    "dispatch.patience": ("0", 0),
    "dispatch.trusted_users": ("webui, gateway", ("webui", "gateway")),
    "dispatch.aliases": ("gpt-4o=llama3.2, fast=qwen3:0.6b", (("gpt-4o", "llama3.2"), ("fast", "qwen3:0.6b"))),
    "dispatch.deliver_missing": ("no", False),
    "dispatch.max_failures": ("5", 5),
    "dispatch.probe_after": ("30s", 30),
    "dispatch.retries": ("1", 1),
    "features.enable_tracing": ("true", True),
    "dispatch.keep_usage": ("30d", 30 * 86_400),
    "hub.enabled": ("yes", True),
    "hub.announce": ("yes", True),
    "hub.heartbeat_ttl": ("45s", 45),
    "hub.heartbeat_offline": ("5m", 300),
    "hub.request_timeout": ("30s", 30),
    "pulls.mode": ("wait", PullMode.WAIT),
    "pulls.delivery": ("link", Delivery.LINK),
    "pulls.deliver_to": (
        "http://gpu1:11434, http://gpu2:11434",
        (Destination(url="http://gpu1:11434"), Destination(url="http://gpu2:11434")),
    ),
    "pulls.show_stored": ("yes", True),
    "pulls.windows": ("Mon-Fri 21:00-05:30, sat 00:00-24:00", ("Mon-Fri 21:00-05:30", "sat 00:00-24:00")),
    "pulls.timezone": ("Europe/Berlin", "Europe/Berlin"),
    "pulls.rate": ("5MB/s", Rates(5_000_000)),
    "pulls.keep": ("llama3.2, qwen3:*", ("llama3.2", "qwen3:*")),
    "pulls.tries": ("9", 9),
    "pulls.retry_delay": ("1m", 60),
    "pulls.max_queued": ("10", 10),
    "pulls.daily_limit": ("0", 0),
    "pulls.disk_threshold": ("80%", Share(80)),
    "pulls.disk_path": ("/data/ollama", Path("/data/ollama")),
    "pulls.webhook": ("https://hooks.lan/pulls/?to=me", "https://hooks.lan/pulls/?to=me"),
    "pulls.history": ("7d", 7 * 86_400),
    "prompts.enabled": ("no", False),
    "prompts.model": ("qwen3:0.6b", "qwen3:0.6b"),
    "prompts.at_once": ("2", 2),
    "prompts.idle_at_once": ("3", 3),
    "prompts.windows": ("21:00-05:30", ("21:00-05:30",)),
    "prompts.max_queued": ("50", 50),
    "prompts.max_size": ("50MB", 50_000_000),
    "prompts.tries": ("1", 1),
    "prompts.retry_delay": ("5s", 5),
    "prompts.webhook_hosts": ("n8n.lan, 10.0.0.7:5678", ("n8n.lan", "10.0.0.7:5678")),
    "prompts.batch_run": ("Now", Run.NOW),
    "prompts.file_size": ("1MB", 1_000_000),
    "prompts.files_size": ("1GB", 1_000_000_000),
    "prompts.keep": ("1d", 86_400),
    "security.anonymous": ("pull, api", ("pull", "api")),
    "security.token_ttl": ("5m", 300),
    "security.ticket_ttl": ("2h", 7200),
    "security.rules": (
        '[{"deny": ["*-fp16", "hf.co/*/*"], "users": ["class"], "parameters_over": "13B", "over": "40GB"}]',
        (PolicyRule(deny=("*-fp16", "hf.co/*/*"), users=("class",), parameters_over=13 * 10**9, over=40 * 10**9),),
    ),
    "security.trusted_proxies": ("10.0.0.1, fd00::/8", ("10.0.0.1/32", "fd00::/8")),
    "security.origins": ("https://Chat.lan, http://*.lan:8080", ("https://chat.lan", "http://*.lan:8080")),
    "security.allowed_models": ("llama3.2, codellama,,mistral", ("llama3.2", "codellama", "mistral")),
    "security.blocked_models": ("dangerous-model", ("dangerous-model",)),
    "security.rate_limit_requests": ("100", 100),
    "security.rate_limit_window": ("30s", 30),
    "logging.level": ("debug", "DEBUG"),
    "logging.format": ("JSON", "json"),
    "logging.file": ("/var/log/mirror.log", Path("/var/log/mirror.log")),
    "logging.max_file_size": ("1GiB", 1 << 30),
    "logging.backup_count": ("0", 0),
    "logging.access": ("off", False),
    "features.enable_api_proxy": ("0", False),
    "features.enable_metrics": ("false", False),
    "features.enable_web_ui": ("false", False),
    "database.url": ("postgresql+asyncpg://db/mirror", "postgresql+asyncpg://db/mirror"),
}
"""For each key a text that sets it away from its default, and what it then is."""

SHORT = {
    "HOST": "server.host",
    "PORT": "server.port",
    "WORKERS": "server.workers",
    "CACHE_DIR": "cache.directory",
    "CACHE_CLEANUP_INTERVAL": "cache.cleanup_interval",
    "UPSTREAM_URL": "upstream.url",
    "UPSTREAM_TIMEOUT": "upstream.timeout",
    "MAX_CONCURRENT_DOWNLOADS": "upstream.max_concurrent_downloads",
    "RETRY_ATTEMPTS": "upstream.retry_attempts",
    "RETRY_DELAY": "upstream.retry_delay",
    "ALLOWED_MODELS": "security.allowed_models",
    "BLOCKED_MODELS": "security.blocked_models",
    "RATE_LIMIT_REQUESTS": "security.rate_limit_requests",
    "RATE_LIMIT_WINDOW": "security.rate_limit_window",
    "LOG_LEVEL": "logging.level",
    "LOG_FILE": "logging.file",
}


def test_there_is_a_sample_for_every_key() -> None:
    """A new key joins these tests; secrets have tests of their own."""
    secrets = {
        "security.api_key",
        "hf_token",
        "upstream.token",
        "upstream.password",
        "pulls.webhook_secret",
        "prompts.webhook_secret",
        "hub.token",
    }
    assert set(SAMPLES) == set(FIELDS) - secrets


def written(key: str, text: str) -> str:
    """Return YAML that sets ``key``."""
    section, _, name = key.rpartition(".")
    return f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n"


@pytest.mark.parametrize("key", SAMPLES)
def test_file_sets_every_key(key: str, tmp_path: Path) -> None:
    """And the origin is the file."""
    text, value = SAMPLES[key]
    file = tmp_path / "config.yaml"
    file.write_text(written(key, text))

    loaded = load(file, {}, {})

    assert value_of(loaded.settings, key) == value != value_of(Settings(), key)
    assert loaded.origins == dict.fromkeys(FIELDS, "default") | {key: str(file)}
    assert loaded.file == file


@pytest.mark.parametrize("key", SAMPLES)
def test_environment_sets_every_key(key: str) -> None:
    """Under OLLAMA_MIRROR_SECTION_KEY."""
    text, value = SAMPLES[key]
    name = f"OLLAMA_MIRROR_{key.replace('.', '_').upper()}"

    loaded = load(None, {name: text}, {})

    assert value_of(loaded.settings, key) == value
    assert loaded.origins[key] == f"environment {name}"


@pytest.mark.parametrize("key", SAMPLES)
def test_environment_names_a_file_for_every_key(key: str, tmp_path: Path) -> None:
    """Under the same name with _FILE, as Docker's and systemd's secrets come."""
    text, value = SAMPLES[key]
    secret = tmp_path / "secret"
    secret.write_text(f"  {text}\n")
    name = f"OLLAMA_MIRROR_{key.replace('.', '_').upper()}_FILE"

    loaded = load(None, {name: str(secret)}, {})

    assert value_of(loaded.settings, key) == value
    assert loaded.origins[key] == f"environment {name}"


@pytest.mark.parametrize("key", SAMPLES)
def test_flag_sets_every_key(key: str) -> None:
    """Under its dotted key, with a text or with the value itself."""
    text, value = SAMPLES[key]

    for given in (text, value):
        loaded = load(None, {}, {key: given})

        assert value_of(loaded.settings, key) == value
        assert loaded.origins[key] == "flag"


@pytest.mark.parametrize(("short", "key"), SHORT.items())
def test_environment_knows_the_older_names(short: str, key: str) -> None:
    """Those of the first program do not all follow the form."""
    text, value = SAMPLES[key]

    assert value_of(load(None, {f"OLLAMA_MIRROR_{short}": text}, {}).settings, key) == value


def test_the_older_name_of_the_secret() -> None:
    """It has no sample above."""
    settings = load(None, {"OLLAMA_MIRROR_API_KEY": "k"}, {}).settings

    assert settings.security.api_key is not None
    assert settings.security.api_key.get_secret_value() == "k"


@pytest.mark.parametrize(
    ("text", "value"), [("None", "none"), ("AUTO", "auto"), ("http://127.0.0.1:11435", "http://127.0.0.1:11435")]
)
def test_the_backend_has_the_name_that_an_older_proxy_gave_it(text: str, value: str) -> None:
    """Its users set OLLAMA_BACKEND, which is not below our prefix."""
    loaded = load(None, {"OLLAMA_BACKEND": text}, {})

    assert (loaded.settings.proxy.backend, loaded.origins["proxy.backend"]) == (value, "environment OLLAMA_BACKEND")


def test_a_backend_that_is_no_url_is_refused() -> None:
    """A bare host and port, as OLLAMA_HOST takes them, would else be asked for as a path."""
    with pytest.raises(SettingsError, match="must be auto, none, or the URL of an Ollama"):
        load(None, {"OLLAMA_BACKEND": "127.0.0.1:11435"}, {})


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("cache.dir", "/srv", "cache.directory", Path("/srv")),
        ("cache.retention_days", "30", "cache.retention", 30 * 86_400),
        ("cache.retention_days", "0.5", "cache.retention", 43_200),
        ("cache.retention_days", "12h", "cache.retention", 43_200),
        ("cache.max_size_gb", "100", "cache.max_size", 100 * 10**9),
        ("cache.max_size_gb", "1.5", "cache.max_size", 1_500_000_000),
        ("logging.max_file_size_mb", "20", "logging.max_file_size", 20_000_000),
        ("upstream.stall_timeout_s", "15", "upstream.stall_timeout", 15),
        ("server.shutdown_s", "7.5", "server.shutdown", 7.5),
    ],
)
def test_number_under_a_name_with_a_unit_is_in_that_unit(
    name: str, text: str, key: str, value: object, tmp_path: Path
) -> None:
    """In the file and in the environment; a text that brings its own unit says more than the name."""
    file = tmp_path / "config.yaml"
    file.write_text(written(name, text))
    variable = f"OLLAMA_MIRROR_{name.replace('.', '_').upper()}"

    from_file, from_environment = load(file, {}, {}), load(None, {variable: text}, {})

    assert value_of(from_file.settings, key) == value == value_of(from_environment.settings, key)
    assert from_file.origins[key] == f"{file}, {name}"
    assert from_environment.origins[key] == f"environment {variable}"


@pytest.mark.parametrize("name", [name for name, alias in NAMES.items() if alias.unit])
def test_every_name_with_a_unit_agrees_with_the_unit_written_out(name: str) -> None:
    """Whatever keys come, their aliases follow."""
    alias = NAMES[name]
    variable = f"OLLAMA_MIRROR_{name.replace('.', '_').upper()}"

    aliased, plain = load(None, {variable: "2"}, {}), load(None, {}, {alias.key: f"2{alias.unit}"})

    assert aliased.settings == plain.settings != Settings()


def test_no_two_settings_share_a_variable() -> None:
    """Not even by _FILE, by which logging.file and upstream.key_file end."""
    regular = [f"OLLAMA_MIRROR_{name.replace('.', '_').upper()}" for name in NAMES]
    pointing = {f"{name}_FILE" for name in VARIABLES}

    assert [name for name, group in groupby(sorted(regular)) if len(list(group)) > 1] == []
    assert pointing.isdisjoint(VARIABLES)
    assert NOT_SETTINGS.isdisjoint({*VARIABLES, *pointing})


@pytest.mark.parametrize(
    ("environ", "agree"),
    [
        ({"OLLAMA_MIRROR_PORT": "1", "OLLAMA_MIRROR_SERVER_PORT": "01"}, True),
        ({"OLLAMA_MIRROR_CACHE_RETENTION": "1w", "OLLAMA_MIRROR_CACHE_RETENTION_DAYS": "7"}, True),
        ({"OLLAMA_MIRROR_PORT": "x", "OLLAMA_MIRROR_SERVER_PORT": "y"}, False),
        ({"OLLAMA_MIRROR_CACHE_RETENTION": "8d", "OLLAMA_MIRROR_CACHE_RETENTION_DAYS": "7"}, False),
        ({"OLLAMA_MIRROR_API_KEY": "hunter2", "OLLAMA_MIRROR_SECURITY_API_KEY": "hunter3"}, False),
    ],
)
def test_two_variables_for_one_key_must_agree(environ: dict[str, str], *, agree: bool) -> None:
    """Which one would win is nothing a person can know; the message holds both names and no value."""
    if agree:
        load(None, environ, {})
        return
    with pytest.raises(SettingsError, match="set it to different values; keep one of them") as refused:
        load(None, environ, {})

    assert all(name in refused.value.problem for name in environ)
    assert "hunter" not in str(refused.value)


def test_two_names_in_a_file_must_agree(tmp_path: Path) -> None:
    """As in the environment."""
    file = tmp_path / "config.yaml"
    file.write_text("cache:\n  max_size: 1GB\n  max_size_gb: 2\n")

    with pytest.raises(SettingsError) as refused:
        load(file, {}, {})

    assert str(refused.value) == (
        "cache.max_size: cache.max_size and cache.max_size_gb set it to different values; keep one of them "
        f"(from {file}, cache.max_size_gb)"
    )


@pytest.mark.parametrize("value", ["1", "0", "yes", "quiet please"])
def test_the_variables_of_an_older_prompt_proxy(value: str) -> None:
    """Whatever value one of them has, it is quiet."""
    environ = {"OLLAMA_URL": "http://gpu:11434/api/generate", "OLLAMA_MODEL": "qwen3", "OLLAMA_PROXY_QUIET": value}

    loaded = load(None, environ, {})

    assert (loaded.settings.proxy.backend, loaded.settings.prompts.model) == ("http://gpu:11434", "qwen3")
    assert not loaded.settings.logging.access
    assert loaded.origins["logging.access"] == "environment OLLAMA_PROXY_QUIET"
