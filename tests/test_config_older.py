"""The manual of the first program of this kind: its file and its environment work here as written there."""

from pathlib import Path

from mirror.config import Settings, load, not_yet

EXAMPLE = """{
  "server": {
    "host": "0.0.0.0",
    "port": 11434,
    "workers": 1
  },
  "cache": {
    "directory": "./cache",
    "retention_days": 30,
    "max_size_gb": 100,
    "cleanup_interval": 3600
  },
  "upstream": {
    "url": "https://registry.ollama.ai",
    "timeout": 300,
    "max_concurrent_downloads": 3,
    "retry_attempts": 3
  },
  "security": {
    "api_key": "your-secret-key",
    "allowed_models": ["llama3.2", "codellama", "mistral"],
    "rate_limit_requests": 100,
    "rate_limit_window": 60
  },
  "logging": {
    "level": "INFO",
    "file": "/var/log/ollama-mirror.log",
    "max_file_size": "10MB",
    "backup_count": 5
  },
  "features": {
    "enable_api_proxy": true,
    "enable_metrics": true,
    "enable_web_ui": false
  }
}
"""


def test_older_config_json_loads_as_written(tmp_path: Path) -> None:
    """JSON is YAML; the whole example of the first program's manual."""
    file = tmp_path / "config.json"
    file.write_text(EXAMPLE)

    settings = load(file, {}, {}).settings

    assert settings.server == Settings().server
    assert settings.upstream == Settings().upstream
    assert settings.cache.model_dump(exclude_defaults=True) == {"retention": 30 * 86_400, "max_size": 100 * 10**9}
    assert settings.security.api_key is not None
    assert settings.security.api_key.get_secret_value() == "your-secret-key"
    assert settings.security.allowed_models == ("llama3.2", "codellama", "mistral")
    assert settings.security.rate_limit_requests == 100
    assert settings.logging.file == Path("/var/log/ollama-mirror.log")
    assert settings.features.enable_web_ui is False
    assert not_yet(settings) == [], "everything in it is acted on"


OLDER_ENVIRONMENT = {
    "OLLAMA_MIRROR_HOST": "0.0.0.0",
    "OLLAMA_MIRROR_PORT": "11434",
    "OLLAMA_MIRROR_WORKERS": "1",
    "OLLAMA_MIRROR_CACHE_DIR": "./cache",
    "OLLAMA_MIRROR_CACHE_RETENTION_DAYS": "30",
    "OLLAMA_MIRROR_CACHE_MAX_SIZE_GB": "100",
    "OLLAMA_MIRROR_UPSTREAM_URL": "https://registry.ollama.ai",
    "OLLAMA_MIRROR_UPSTREAM_TIMEOUT": "300",
    "OLLAMA_MIRROR_MAX_CONCURRENT_DOWNLOADS": "3",
    "OLLAMA_MIRROR_API_KEY": "your-secret-key",
    "OLLAMA_MIRROR_ALLOWED_MODELS": "llama3.2,codellama,mistral",
    "OLLAMA_MIRROR_RATE_LIMIT_REQUESTS": "100",
    "OLLAMA_MIRROR_LOG_LEVEL": "INFO",
    "OLLAMA_MIRROR_LOG_FILE": "/var/log/ollama-mirror.log",
}


def test_older_environment_means_what_the_older_file_means(tmp_path: Path) -> None:
    """The two ways of the manual give the same mirror, but for the pages that only the file turns off."""
    file = tmp_path / "config.json"
    file.write_text(EXAMPLE.replace('"enable_web_ui": false', '"enable_web_ui": true'))

    assert load(None, OLDER_ENVIRONMENT, {}).settings == load(file, {}, {}).settings


def test_the_environment_of_other_programs_of_this_kind() -> None:
    """Of the queue in front of an Ollama, of the prompt proxy, and of the hub."""
    environ = {
        "OLLAMA_URL": "http://127.0.0.1:11434/api/generate",
        "LISTEN_PORT": "11435",
        "TIMEOUT": "60",
        "HEARTBEAT_TTL_SECONDS": "45",
        "HEARTBEAT_OFFLINE_SECONDS": "90",
        "NODE_MAX_FAILURES": "5",
        "NODE_REQUEST_TIMEOUT": "30",
    }
    said = load(None, environ, {}).settings
    assert (said.proxy.backend, said.server.port) == ("http://127.0.0.1:11434", 11435)
    assert (said.dispatch.timeout, said.dispatch.max_failures) == (60, 5)
    assert (said.hub.heartbeat_ttl, said.hub.heartbeat_offline, said.hub.request_timeout) == (45, 90, 30)
