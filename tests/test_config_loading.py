"""Which source wins, which file is read, and what is said of names that are not there."""

import re
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import SYSTEM_FILE, Settings, find_file, load, server_url
from mirror.config.aliases import VARIABLES
from mirror.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file that is not there yet."""
    return tmp_path / "config.yaml"


def test_later_source_wins_key_by_key(file: Path) -> None:
    """Defaults, file, environment, flags."""
    file.write_text("server: {host: file, port: 1, shutdown: 1s}\nupstream: {connections: 2}")
    environ = {"OLLAMA_MIRROR_SERVER_PORT": "2", "OLLAMA_MIRROR_SERVER_SHUTDOWN": "2s", "HOME": "/"}

    loaded = load(file, environ, {"server.shutdown": "3s", "server.host": None})

    assert loaded.settings.server.model_dump(exclude_defaults=True) == {"host": "file", "port": 2, "shutdown": 3}
    assert loaded.settings.upstream.connections == 2
    assert {key: origin for key, origin in loaded.origins.items() if origin != "default"} == {
        "server.host": str(file),
        "server.port": "environment OLLAMA_MIRROR_SERVER_PORT",
        "server.shutdown": "flag",
        "upstream.connections": str(file),
    }


@pytest.mark.parametrize(
    "text",
    ["", "\n# nothing\n", "---\n", "{}", "server:\n", "server: null\ncache: ~\n", "server:\n  port:\n", "\ufeff"],
)
def test_file_that_says_nothing_means_the_defaults(text: str, file: Path) -> None:
    """A section or a key may be left empty."""
    file.write_text(text)

    assert load(file, {}, {}).settings == Settings() == load(None, {}, {}).settings


def test_empty_variable_is_unset(file: Path) -> None:
    """Compose files pass `${NAME:-}` on."""
    file.write_text("server: {port: 1}")
    environ = {"OLLAMA_MIRROR_PORT": "", "OLLAMA_MIRROR_API_KEY": "", "OLLAMA_MIRROR_API_KEY_FILE": ""}

    loaded = load(file, environ, {})

    assert loaded.settings.server.port == 1
    assert loaded.settings.security.api_key is None


def test_file_is_read_as_text_and_not_guessed_at(file: Path) -> None:
    """YAML 1.1 would make an octal number, a date and a float of these."""
    file.write_text("security: {api_key: 0123, allowed_models: [3.10]}\nupstream: {user_agent: 2026-01-01}")

    settings = load(file, {}, {}).settings

    assert settings.security.api_key is not None
    assert settings.security.api_key.get_secret_value() == "0123"
    assert settings.security.allowed_models == ("3.10",)
    assert settings.upstream.user_agent == "2026-01-01"


def test_anchors_work(file: Path) -> None:
    """One text may stand in several places."""
    file.write_text("upstream: {timeout: &t 9s, connect_timeout: *t}")

    assert load(file, {}, {}).settings.upstream.connect_timeout == 9


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("OLLAMA_MIRROR_CACHE_DRI", "; did you mean OLLAMA_MIRROR_CACHE_DIR?"),
        ("OLLAMA_MIRROR_CONFIGS", "; did you mean OLLAMA_MIRROR_CONFIG?"),
        ("OLLAMA_MIRROR_XXXXXXXXXXXXXXXXXXXXXXXXXXX", ""),
    ],
)
def test_unknown_variable_is_refused_with_the_closest_name(name: str, said: str) -> None:
    """A typing error would otherwise change nothing, silently; an empty value does not excuse it."""
    for value in ("1", ""):
        with pytest.raises(SettingsError) as refused:
            load(None, {name: value}, {})

        assert str(refused.value) == f"{name}: there is no such setting{said} (from environment)"


def test_variables_of_commands_are_no_settings() -> None:
    """They say which file to load and which mirror to ask."""
    environ = {"OLLAMA_MIRROR_CONFIG": "x", "OLLAMA_MIRROR_SERVER": "x", "OLLAMA_HOST": "x", "PORT": "x"}

    assert load(None, environ, {}).settings == Settings()


def test_unknown_flag_is_refused() -> None:
    """Commands and settings are kept in step."""
    with pytest.raises(
        SettingsError, match=re.escape("server.prot: there is no such setting; did you mean server.port?")
    ):
        load(None, {}, {"server.prot": 1})


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or a folder."""
    for file, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError) as refused:
            load(file, {}, {})

        assert str(refused.value) == f"cannot be read: {reason} (from {file})"


def test_secret_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """An empty one too: it would let everybody in. The path stays out of it, as it may be the secret itself."""
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff")
    name = "OLLAMA_MIRROR_API_KEY_FILE"
    cases = {
        "hunter2": "cannot be read: No such file or directory",
        "nul\0": "is no UTF-8 text",
        str(tmp_path / "empty"): "is empty",
        str(tmp_path / "binary"): "is no UTF-8 text",
    }
    for path, said in cases.items():
        with pytest.raises(SettingsError) as refused:
            load(None, {name: path}, {})

        assert str(refused.value) == f"security.api_key: the file it names {said} (from environment {name})"


def test_file_is_found_by_variable_then_folder_then_system(tmp_path: Path) -> None:
    """The nearest wish first."""
    system, here, other = tmp_path / "system.yaml", tmp_path / "config.yaml", tmp_path / "other.yaml"

    assert find_file({}, tmp_path, system) is None
    system.touch()
    assert find_file({}, tmp_path, system) == system
    here.touch()
    assert find_file({}, tmp_path, system) == here
    other.touch()
    assert find_file({"OLLAMA_MIRROR_CONFIG": "other.yaml"}, tmp_path, system) == other
    assert find_file({"OLLAMA_MIRROR_CONFIG": str(other)}, Path("/"), system) == other
    assert find_file({"OLLAMA_MIRROR_CONFIG": ""}, tmp_path, system) == here
    assert Path("/etc/mirror/config.yaml") == SYSTEM_FILE


def test_file_that_the_variable_names_must_exist(tmp_path: Path) -> None:
    """Falling back to another file would be a surprise."""
    (tmp_path / "config.yaml").touch()

    with pytest.raises(SettingsError) as refused:
        find_file({"OLLAMA_MIRROR_CONFIG": "none.yaml"}, tmp_path)

    assert str(refused.value) == "there is no file none.yaml (from environment OLLAMA_MIRROR_CONFIG)"


def test_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    """A volume that is not mounted must not turn into the defaults."""
    (tmp_path / "config.yaml").symlink_to("gone.yaml")

    found = find_file({}, tmp_path)

    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        load(found, {}, {})


def test_server_url_is_the_clients_default() -> None:
    """Checked like any URL."""
    assert server_url({}) is None
    assert server_url({"OLLAMA_MIRROR_SERVER": ""}) is None
    assert server_url({"OLLAMA_MIRROR_SERVER": "http://mirror:11434/"}) == "http://mirror:11434"
    with pytest.raises(SettingsError) as refused:
        server_url({"OLLAMA_MIRROR_SERVER": "http://u:hunter2@mirror"})
    assert str(refused.value) == (
        "must not hold a user or password, not 'http://***@mirror' (from environment OLLAMA_MIRROR_SERVER)"
    )


def test_state_folder_stands_beside_the_store() -> None:
    """Inside it, Ollama would take it for its own."""
    assert Settings().cache.state_directory == Path("cache.state")
    assert load(None, {}, {"cache.directory": "/srv/m.d/"}).settings.cache.state_directory == Path("/srv/m.d.state")
    assert load(None, {}, {"cache.state": "/var/s"}).settings.cache.state_directory == Path("/var/s")


@given(
    st.one_of(
        st.binary(), st.text().map(str.encode), st.from_regex(r"(server|cache): [\[{&*!a-z:, ]{0,20}\n").map(str.encode)
    )
)
def test_no_file_brings_up_another_error(content: bytes) -> None:
    """Whatever a file holds is taken or refused."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_bytes(content)
        with suppress(SettingsError):
            load(file, {}, {})


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(), max_size=3))
def test_no_environment_brings_up_another_error(environ: dict[str, str]) -> None:
    """Whatever a variable holds is taken or refused."""
    with suppress(SettingsError):
        load(None, environ, {})
