"""Every setting on one page, for people: made from the schema, so that it is never another."""

from collections import defaultdict

from mirror.config.aliases import CONFIG_VARIABLE, FOREIGN, PREFIX, VARIABLES
from mirror.config.loading import load
from mirror.config.rows import Row, rows
from mirror.config.sections import SECTIONS, Settings

_HEAD = f"""# Settings

This page is what `mirror config reference` prints. Settings come from a file (`--config`, `{CONFIG_VARIABLE}`,
`config.yaml` or `config.json` here, `/etc/mirror/config.yaml`), before that from the environment, and before that from
flags. `mirror config show --origin` says which value is in force and where it was set; `mirror config check` finds what
is wrong.

`cache.max_size` is in a file `max_size` below `cache`, and the variable `{PREFIX}CACHE_MAX_SIZE`; with `_FILE` at
its end it names a file that has the value. Sizes are such as 500GB or 100GiB, times such as 90s, 15m, 12h, 30d, rates
such as 10MB/s. A key that is not known is refused, with the nearest that is.
"""


def reference() -> str:
    """Return the page, in Markdown."""
    by_section: dict[str, list[Row]] = defaultdict(list)
    for row in rows(load(None, {}, {})):
        by_section[row.key.rpartition(".")[0]].append(row)
    parts = [_HEAD]
    for section, found in by_section.items():
        title = f"`{section}`" if section else "At the top"
        said = Settings.model_fields[section].description if section in SECTIONS else ""
        parts.append(f"## {title}\n\n{said or ''}\n".replace("\n\n\n", "\n"))
        parts.append("| key | default | what | also called |\n|---|---|---|---|")
        parts += [_line(row) for row in found]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _line(row: Row) -> str:
    default = row.value_text if len(row.value_text) < 60 else "see `config.yaml`"
    shown = default if default.startswith("see ") else f"`{default}`"
    others = sorted(name for name, alias in VARIABLES.items() if alias.key == row.key and _is_other(name, row.key))
    name = row.key.rpartition(".")[2]
    cells = (f"`{name}`", shown, row.description, ", ".join(f"`{one}`" for one in others))
    return "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"


def _is_other(name: str, key: str) -> bool:
    """Whether a variable is one of an older program, or a short form: those made from the key's own name are plain."""
    return name in FOREIGN or not name.startswith(PREFIX + key.replace(".", "_").upper())
