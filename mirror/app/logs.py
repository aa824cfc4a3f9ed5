"""Where log lines go and what they look like."""

import logging
import logging.handlers
import sys
from contextlib import nullcontext

import structlog

from mirror.config import LogFormat, LoggingSettings
from mirror.errors import SettingsError


def reopen_files() -> None:
    """Have log files opened anew at their next line, for who has put them aside under another name (logrotate)."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with handler.lock or nullcontext():
                if handler.stream is not None:
                    handler.stream.close()
                handler.stream = None  # as FileHandler itself has it where it opens late


def set_up_logs(settings: LoggingSettings) -> None:
    """Send every logger's lines to standard error, or to a file that rotates by size. Once per process.

    Raises:
        SettingsError: the file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.file is not None:
        try:
            handler = logging.handlers.RotatingFileHandler(
                settings.file, maxBytes=settings.max_file_size, backupCount=settings.backup_count
            )
        except OSError as error:
            raise SettingsError(
                "logging.file", f"cannot write {settings.file}: {error.strerror}", "settings"
            ) from error
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    on_terminal = settings.file is None and sys.stderr.isatty()
    as_json = settings.format is LogFormat.JSON or (settings.format is LogFormat.AUTO and not on_terminal)
    last: structlog.typing.Processor = structlog.dev.ConsoleRenderer(colors=on_terminal)
    if as_json:
        last = structlog.processors.JSONRenderer()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            last,
        ],
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=settings.level.value, force=True)
    for chatty in ("aiosqlite", "alembic", "asyncio", "stamina"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(settings.level.value)))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
