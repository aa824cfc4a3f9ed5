"""What is shown of the settings: the table, the schema, the example file, and never a secret."""

import json
import traceback
from pathlib import Path

import pydantic
import pytest
import yaml

from mirror.config import NOT_YET, Settings, load, not_yet, rows, schema
from mirror.config.sections import FIELDS, SECTIONS
from mirror.errors import SettingsError

EXAMPLE = Path(__file__).parent.parent / "config.yaml"
SECRET = "hunter2-hunter2"


def test_example_file_is_the_defaults_with_every_key_and_its_description() -> None:
    """It is the first documentation one reads."""
    tree = yaml.safe_load(EXAMPLE.read_text())
    lines = [line.strip() for line in EXAMPLE.read_text().splitlines()]
    keys = [f"{top}.{name}" for top in SECTIONS for name in tree[top]]

    assert load(EXAMPLE, {}, {}).settings == Settings()
    assert [*(top for top in tree if top not in SECTIONS), *keys] == list(FIELDS)
    for key, field in FIELDS.items():
        described = lines.index(f"# {field.description}")
        assert lines[described + 1].startswith(f"{key.rpartition('.')[2]}: ")


def test_every_setting_and_section_has_a_description_of_one_line() -> None:
    """They are the documentation."""
    for field in [*FIELDS.values(), *(Settings.model_fields[name] for name in SECTIONS)]:
        assert field.description
        assert field.description.endswith(".")
        assert "\n" not in field.description


def test_defaults_pass_their_own_checks() -> None:
    """Pydantic does not look at defaults; given as flags they go through every check."""
    defaults = {row.key: row.value_text for row in rows(load(None, {}, {})) if row.value_text not in ("null", "[]")}

    assert load(None, {}, dict(defaults)).settings == Settings()


def test_settings_are_frozen_and_hashable() -> None:
    """A section is handed to many parts."""
    settings = Settings()

    with pytest.raises(pydantic.ValidationError):
        settings.server.port = 1  # type: ignore[misc]  # that is the test

    assert hash(settings) == hash(Settings())


def test_rows_show_values_as_people_write_them() -> None:
    """With units, and what set them."""
    environ = {
        "OLLAMA_MIRROR_CACHE_RETENTION_DAYS": "30",
        "OLLAMA_MIRROR_CACHE_MIN_FREE": "5 %",
        "OLLAMA_MIRROR_UPSTREAM_RATE": "20000000",
        "OLLAMA_MIRROR_ALLOWED_MODELS": "a, b",
        "OLLAMA_MIRROR_LOG_LEVEL": "debug",
    }
    shown = {row.key: row for row in rows(load(None, environ, {"cache.directory": Path("/srv")}))}

    assert list(shown) == list(FIELDS)
    assert {key: row.value_text for key, row in shown.items() if row.origin != "default"} == {
        "cache.directory": "/srv",
        "cache.min_free": "5%",
        "cache.retention": "30d",
        "upstream.rate": "20MB/s",
        "security.allowed_models": '["a", "b"]',
        "logging.level": "DEBUG",
    }
    assert shown["cache.retention"].origin == "environment OLLAMA_MIRROR_CACHE_RETENTION_DAYS"
    assert shown["offline"].value_text == "false"
    assert shown["cache.max_size"].value_text == "null"
    assert shown["cache.max_size"].description == FIELDS["cache.max_size"].description


def test_secrets_are_stars_wherever_settings_are_shown() -> None:
    """str, repr, rows, JSON."""
    url = f"postgresql+asyncpg://mirror:{SECRET}@db/mirror?password={SECRET}"
    loaded = load(None, {"OLLAMA_MIRROR_API_KEY": SECRET}, {"database.url": url})
    shown = {row.key: row.value_text for row in rows(loaded)}

    assert shown["security.api_key"] == "***"
    assert shown["database.url"] == "postgresql+asyncpg://***@db/mirror?***"
    assert loaded.settings.database.url == url
    settings = loaded.settings
    for text in (str(loaded), repr(loaded), str(settings), repr(settings), settings.model_dump_json(), str(shown)):
        assert SECRET not in text
    for text in (repr(settings.security), repr(settings.database)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        (
            "security.api_key",
            f" {SECRET}",
            "must not be empty, must be printable and must not begin or end with a space, not ***",
        ),
        (
            "security.api_key",
            "",
            "must not be empty, must be printable and must not begin or end with a space, not ***",
        ),
        ("security.api_key", [SECRET], "must be a text, not ***"),
        (
            "database.url",
            f"mirror:{SECRET}@db",
            "must be a database URL, such as sqlite+aiosqlite:///mirror.db or postgresql+asyncpg://host/name, not ***",
        ),
        ("upstream.url", f"https://u:{SECRET}@host", "must not hold a user or password, not 'https://***@host'"),
        ("upstream.url", [f"https://u:{SECRET}@h"], "must be a text, not ['https://***@h']"),
    ],
)
def test_secrets_are_stars_in_refusals(key: str, given: object, said: str) -> None:
    """In the message and in the traceback, whatever is wrong."""
    with pytest.raises(SettingsError) as refused:
        load(None, {}, {key: given})

    assert str(refused.value) == f"{key}: {said} (from flag)"
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_secret_stays_hidden_when_another_key_is_refused(tmp_path: Path) -> None:
    """Also where the whole file is refused."""
    file = tmp_path / "config.yaml"
    for text in (f"api_key: {SECRET}\nserver: {{port: x}}", f"port: {SECRET}", f"api_key: *{SECRET}", f"a: '{SECRET}"):
        file.write_text(f"security: {{api_key: {SECRET}}}\n{text}")
        with pytest.raises(SettingsError) as refused:
            load(file, {}, {})

        assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_settings_not_acted_on_are_named() -> None:
    """Only where they are set to something else than the default."""
    keys = ("security.rate_limit_window", "security.allowed_models")
    assert not_yet(load(None, {}, {"security.rate_limit_window": 60, "cache.manifest_ttl": 1}).settings, keys) == []
    assert not_yet(load(None, {}, {"security.rate_limit_window": 1, "offline": True}).settings, keys) == [keys[0]]
    assert set(NOT_YET) <= set(FIELDS)


def test_schema_describes_every_setting() -> None:
    """Editors read it; numbers and texts are both right where a unit may be written."""
    tree = json.loads(json.dumps(schema()))
    sections = {name: tree["$defs"][model.__name__] for name, model in SECTIONS.items()}

    assert tree["additionalProperties"] is False
    assert tree["properties"]["offline"]["type"] == "boolean"
    for key, field in FIELDS.items():
        section, _, name = key.rpartition(".")
        if section:
            assert sections[section]["properties"][name]["description"] == field.description
            assert sections[section]["additionalProperties"] is False
    assert sections["cache"]["properties"]["manifest_ttl"]["type"] == ["string", "number"]
