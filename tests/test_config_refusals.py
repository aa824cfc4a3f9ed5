"""What is said of a file or a value that cannot be used: the key, what is accepted, what is there, and where."""

from pathlib import Path

import pytest

from mirror.config import load
from mirror.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file that is not there yet."""
    return tmp_path / "config.yaml"


def refusal(file: Path, text: str | bytes) -> str:
    """Return what is said of a file that holds ``text``, without the folder it is in."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as refused:
        load(file, {}, {})
    return str(refused.value).replace(str(file), "config.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sever: {}", "sever: there is no such setting; did you mean server?"),
        ("port: 1", "port: there is no such setting; did you mean server.port?"),
        ("zzz: 1", "zzz: there is no such setting"),
        ("1: 2", "1: there is no such setting"),
        ("<<: {server: {port: 1}}", "<<: there is no such setting"),
        ("cache: {max_sise: 1}", "cache.max_sise: there is no such setting; did you mean cache.max_size?"),
        ("cache: {port: 1}", "cache.port: there is no such setting; did you mean server.port?"),
        ("cache: {zzz.yyy: 1}", "cache.zzz.yyy: there is no such setting"),
        ("server: 5", "server: must be a group of settings"),
        ("server: [5]", "server: must be a group of settings"),
        ("security: hunter2", "security: must be a group of settings"),
        ("- a", "must be a mapping of sections, such as 'server:' with settings below it"),
        ("hello", "must be a mapping of sections, such as 'server:' with settings below it"),
        ("server: {port: 1}\nserver: {host: x}", "line 2: server is there twice"),
        ('{"server": {"port": 1, "port": 1}}', "line 1: port is there twice"),
        (
            "server:\n\tport: 1",
            r"line 2: while scanning for the next token, found character '\t' that cannot start any token",
        ),
        ("server: {port: 1", "line 1: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"),
        ("server: [", "line 1: while parsing a flow node, expected the node content, but found '<stream end>'"),
        (
            "offline: true\n---\noffline: true",
            "line 2: expected a single document in the stream, but found another document",
        ),
        ("security: {api_key: *hunter2}", "line 1: found undefined alias that"),
        ("{[a]: b}", "line 1: while constructing a mapping, found unhashable key"),
        ("cache: &a {state: *a}", "line 1: found unconstructable recursive node"),
        (b"\xff\xfe\xff", "is no text in UTF-8 without control characters"),
        ("a: \x00", "is no text in UTF-8 without control characters"),
        ("[" * 5000, "is nested too deeply"),
    ],
)
def test_file_that_cannot_be_used_is_named_with_the_place(text: str | bytes, said: str, file: Path) -> None:
    """One sentence, never a traceback."""
    assert refusal(file, text) == f"{said} (from config.yaml)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("offline: maybe", "offline: must be true or false, not 'maybe'"),
        ("offline: [1]", "offline: must be true or false, not ['1']"),
        ("server: {port: eighty}", "server.port: must be a whole number, not 'eighty'"),
        ("server: {port: 1.5}", "server.port: must be a whole number, not '1.5'"),
        ("server: {port: {a: b}}", "server.port: must be a whole number, not {'a': 'b'}"),
        ("server: {port: 65536}", "server.port: must be less than or equal to 65535, not '65536'"),
        ("server: {port: -1}", "server.port: must be greater than or equal to 0, not '-1'"),
        ("server: {workers: 0}", "server.workers: must be greater than or equal to 1, not '0'"),
        ("server: {host: ' '}", "server.host: must not be empty and must be printable, not ' '"),
        (
            'upstream: {user_agent: "a\\r\\nb: c"}',
            r"upstream.user_agent: must not be empty and must be printable, not 'a\r\nb: c'",
        ),
        ("server: {host: [a]}", "server.host: must be a text, not ['a']"),
        ("cache: {directory: ''}", "cache.directory: must be a path, not empty and printable, not ''"),
        ("cache: {directory: [a]}", "cache.directory: must be a path, not ['a']"),
        (
            "cache: {directory: a/..}",
            "cache.directory: must end in the name of a folder, not in '.', '..' or '/', not 'a/..'",
        ),
        (
            "cache: {directory: /}",
            "cache.directory: must end in the name of a folder, not in '.', '..' or '/', not '/'",
        ),
        (
            "cache: {directory: .}",
            "cache.directory: must end in the name of a folder, not in '.', '..' or '/', not '.'",
        ),
        ("cache: {max_size: 0}", "cache.max_size: must be greater than 0, not '0'"),
        ("cache: {min_free: 101%}", "cache.min_free: must be a share from 0% to 100%, such as 5%, not '101%'"),
        ("upstream: {connections: 65}", "upstream.connections: must be less than or equal to 64, not '65'"),
        ("upstream: {max_connections: 0}", "upstream.max_connections: must be greater than or equal to 1, not '0'"),
        ("upstream: {retry_attempts: 21}", "upstream.retry_attempts: must be less than or equal to 20, not '21'"),
        ("upstream: {stall_timeout: 0s}", "upstream.stall_timeout: must be greater than 0, not '0s'"),
        (
            "upstream: {private_redirects: x}",
            "upstream.private_redirects: must be 'auto', 'allow' or 'refuse', not 'x'",
        ),
        (
            "security: {allowed_models: {a: b}}",
            "security.allowed_models: must be a list, or a text with commas, not {'a': 'b'}",
        ),
        ("security: {allowed_models: [[a]]}", "security.allowed_models: must be a text, not [['a']]"),
        (
            "security: {blocked_models: ['']}",
            "security.blocked_models: must be a model's name, in which * and ? stand for anything: qwen3:*, not ['']",
        ),
        ("upstreams: [{name: lan, hosts: [a]}]", "upstreams: 0.url is missing, not ***"),
        ("upstreams: [{name: huggingface, tokn: hidden}]", "upstreams: 0.tokn is no such setting, not ***"),
        (
            "upstreams: [{name: huggingface}, {name: lan, url: 'http://lan', hosts: [HF.co]}]",
            "upstreams: must not have the host hf.co twice, not ***",
        ),
        (
            "security: {rules: [{deny: a, allow: b}]}",
            "security.rules: 0 must have either allow or deny, with models such as [llama3.2, hf.co/*/*], "
            "not [{'allow': 'b', 'deny': 'a'}]",
        ),
        ("security: {rules: '[{'}", "security.rules: must be a list of groups; as a text, in JSON, not '[{'"),
        (
            "security: {anonymous: [pull, auto]}",
            "security.anonymous: must be auto, none, or a list of pull and api, not ['pull', 'auto']",
        ),
        (
            "security: {trusted_proxies: 10.0.0}",
            "security.trusted_proxies: must be an address or a network, such as 10.0.0.1 or 10.0.0.0/8, not '10.0.0'",
        ),
        ("logging: {level: loud}", "logging.level: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', not 'loud'"),
        ("logging: {format: xml}", "logging.format: must be 'auto', 'console' or 'json', not 'xml'"),
    ],
)
def test_value_that_cannot_be_used_is_shown_with_what_can(text: str, said: str, file: Path) -> None:
    """The key, what it must be, what it is, and where that was set."""
    assert refusal(file, text) == f"{said} (from config.yaml)"


A_DURATION = "must be a length of time such as 250ms, 30s, 1h30m or 7d, or a number of seconds: 0 to 36500d"
A_SIZE = "must be a size such as 100GB (1000-based) or 100GiB (1024-based), or a number of bytes, not negative"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {shutdown: soon}", f"server.shutdown: {A_DURATION}, not 'soon'"),
        ("cache: {retention: [1]}", f"cache.retention: {A_DURATION}, not ['1']"),
        ("cache: {max_size: 1G}", f"cache.max_size: {A_SIZE}, not '1G'"),
        (
            "upstream: {rate: fast}",
            "upstream.rate: must be a rate such as 20MB/s, or a number of bytes per second, not negative, not 'fast'",
        ),
    ],
)
def test_unit_that_cannot_be_used_is_shown_with_what_can(text: str, said: str, file: Path) -> None:
    """One for each unit; tests/test_config_units.py has the rest."""
    assert refusal(file, text) == f"{said} (from config.yaml)"


def test_value_under_an_alias_is_shown_as_it_was_written() -> None:
    """The person wrote -5 days, not -5d."""
    with pytest.raises(SettingsError) as refused:
        load(None, {"OLLAMA_MIRROR_CACHE_RETENTION_DAYS": "-5"}, {})

    assert str(refused.value) == (
        f"cache.retention: {A_DURATION}, not '-5' (from environment OLLAMA_MIRROR_CACHE_RETENTION_DAYS)"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("registry.ollama.ai", "must be an absolute http or https URL, such as https://registry.ollama.ai"),
        ("ftp://host", "must be an absolute http or https URL, such as https://registry.ollama.ai"),
        ("http://", "must be an absolute http or https URL, such as https://registry.ollama.ai"),
        ("http://host:0", "must be an absolute http or https URL, such as https://registry.ollama.ai"),
        ("http://host:99999", "must be an http or https URL with a valid host and port"),
        ("http://[::1", "must be an http or https URL with a valid host and port"),
        ("http://ho st", "must be a URL of printable ASCII characters without spaces"),
        ("http://höst", "must be a URL of printable ASCII characters without spaces"),
        ("http://host?x=1", "must not have a query or fragment"),
        ("http://host/#", "must not have a query or fragment"),
    ],
)
@pytest.mark.parametrize("key", ["upstream.url", "server.public_url"])
def test_url_must_be_absolute_and_plain(key: str, url: str, said: str) -> None:
    """What is put behind it must be a path, or requests would go elsewhere."""
    with pytest.raises(SettingsError) as refused:
        load(None, {}, {key: url})

    assert str(refused.value) == f"{key}: {said}, not {url!r} (from flag)"


@pytest.mark.parametrize(("key", "given"), [("upstream.host", "../etc"), ("upstream.realms", "ok.com,https://x")])
def test_host_must_fit_into_a_model_name(key: str, given: str) -> None:
    """It becomes the name of a folder."""
    with pytest.raises(SettingsError, match="must be a host of letters, digits") as refused:
        load(None, {}, {key: given})

    assert (refused.value.key, refused.value.origin) == (key, "flag")


def test_first_of_several_problems_is_told_and_the_others_are_named(file: Path) -> None:
    """One at a time to read, none to come as a surprise."""
    file.write_text("server: {port: x}\nlogging: {level: loud}\nsecurity: {allowed_models: ['', '']}")

    with pytest.raises(SettingsError) as refused:
        load(file, {"OLLAMA_MIRROR_RETRY_ATTEMPTS": "99"}, {})

    assert refused.value.key == "server.port"
    assert refused.value.problem == (
        "must be a whole number, not 'x'; wrong too: upstream.retry_attempts, security.allowed_models, logging.level"
    )


def test_long_value_is_cut(file: Path) -> None:
    """A message stays a message."""
    assert len(refusal(file, f"server: {{port: {'x' * 10_000}}}")) < 300
    assert len(refusal(file, f"server: {{port: [{'x, ' * 10_000}]}}")) < 300
