"""What is generated from the schema: the commented default file, the reference page, JSON Schema.

``python -m novacron.config.reference`` writes both files of the repository anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from novacron.config import keys
from novacron.config.keys import Key
from novacron.config.loaded import as_plain
from novacron.config.profiles import PROFILES
from novacron.config.schema import Settings

_WORDS_OF_YAML_1_1 = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def as_yaml(value: Any) -> str:
    """*value* on one line of YAML, read alike by YAML 1.1 and 1.2."""
    if isinstance(value, str):
        plain = value[:1].isalpha() and all(c.isalnum() or c in "_-" for c in value)
        if plain and value.isascii() and value.lower() not in _WORDS_OF_YAML_1_1:
            return value
    return json.dumps(as_plain(value), ensure_ascii=False)


def _comment(text: str, indent: str, width: int = 96) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(indent) + 2 + len(line) + 1 + len(word) > width:
            yield f"{indent}# {line}"
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        yield f"{indent}# {line}"


def _section_doc(path: tuple[str, ...]) -> str:
    model: Any = Settings
    for name in path:
        model = model.model_fields[name].annotation
    return (model.__doc__ or "").strip()


def default_yaml() -> str:
    """Every key at its default, with its meaning and what it accepts."""
    lines = [
        "# Every configuration key of a NovaCron node, at its default. Generated: `novacron config default`.",
        "# A node needs no file at all. Copy the keys you change, not the whole file: what a file sets",
        "# wins over the profile of dwcp.mode.",
    ]
    opened: tuple[str, ...] = ()
    for key in keys.all_keys().values():
        section = key.path[:-1]
        for depth in range(len(section)):
            if opened[: depth + 1] != section[: depth + 1]:
                indent = "  " * depth
                lines.append("")
                lines.extend(_comment(_section_doc(section[: depth + 1]), indent))
                lines.append(f"{indent}{section[depth]}:")
        opened = section
        indent = "  " * len(section)
        reload = " Reloadable with SIGHUP." if key.reloadable else ""
        lines.extend(_comment(f"{key.meaning}{reload}", indent))
        lines.extend(_comment(f"Accepts {key.accepted}.", indent))
        lines.append(f"{indent}{key.path[-1]}: {as_yaml(key.default)}")
    return "\n".join(lines) + "\n"


def reference_markdown() -> str:
    """``docs/reference/configuration.md``."""
    lines = [
        "# Configuration keys",
        "",
        "Generated from the schema by `python -m novacron.config.reference`; do not edit.",
        "How values are given, and which one wins, is told in the",
        "[configuration guide](../guide/configuration.md).",
        "Every key also has an environment variable: `NOVACRON_`, then the key in upper case with two",
        "underscores for each dot, so `api.port` is `NOVACRON_API__PORT`. These also have a short name:",
        "",
        "| variable | key |",
        "|---|---|",
        *(f"| `{short}` | `{key}` |" for short, key in keys.SHORT_VARIABLES.items()),
    ]
    opened: tuple[str, ...] = ()
    for key in keys.all_keys().values():
        section = key.path[:-1]
        if section != opened:
            if section[:1] != opened[:1]:
                lines += ["", f"## {section[0]}", "", _section_doc(section[:1])]
            if len(section) > 1:
                lines += ["", f"### {'.'.join(section)}", "", _section_doc(section)]
            lines += ["", "| key | default | accepts | meaning |", "|---|---|---|---|"]
            opened = section
        lines.append(_row(key))
    lines += [
        "",
        "## Profiles",
        "",
        "What each network mode (`dwcp.mode`) changes of the defaults. A file, a variable or a flag",
        "that sets the same key wins.",
        "",
        "| key | default | " + " | ".join(PROFILES) + " |",
        "|---|---|" + "---|" * len(PROFILES),
    ]
    for name in dict.fromkeys(name for profile in PROFILES.values() for name in profile):
        default = keys.all_keys()[tuple(name.split("."))].default
        cells = [as_yaml(profile.get(name, default)) for profile in PROFILES.values()]
        lines.append(f"| `{name}` | {as_yaml(default)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _row(key: Key) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    reload = " Reloadable." if key.reloadable else ""
    return (
        f"| `{key.name}` | `{cell(as_yaml(key.default))}` | {cell(key.accepted)} "
        f"| {cell(key.meaning)}{reload} |"
    )


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, for editors and other validators."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "NovaCron configuration"
    return schema


def generated(root: Path) -> dict[Path, str]:
    """Path in the repository at *root* to what belongs there."""
    return {
        root / "configs" / "default.yaml": default_yaml(),
        root / "docs" / "reference" / "configuration.md": reference_markdown(),
    }


if __name__ == "__main__":
    for path, text in generated(Path(__file__).parents[2]).items():
        path.write_text(text, encoding="utf-8")
