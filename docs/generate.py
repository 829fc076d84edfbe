"""Writes docs/reference from the models and commands; with --check only says whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from pipeline.cli import COMMANDS, NAME, cli
from pipeline.config.reference import components_page, json_schema, sections_page
from pipeline.config.registry import KINDS, Registry

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the docstrings in the code: change those. -->\n\n"
GUIDES = """\
From the guides *API integrator*, *Reliable Tasking* and *AI Sessions*. Names are those of `pipeline.limacharlie`, which programs can
use on its own, and of the command line. The tests run against `lc-pipeline emulate`, many of them with LimaCharlie's own SDKs 5 and
4, and with curl, in our place.
"""


def pages() -> dict[str, str]:
    """File name -> content of the whole reference."""
    registry = Registry(installed=False)
    made = {f"{kind}.md": NOTE + components_page(registry, kind) for kind in KINDS}
    made["sections.md"] = NOTE + sections_page()
    made["commands.md"] = NOTE + commands_page()
    made["guides.md"] = NOTE.replace("the docstrings in the code", "docs/guides.yaml").replace("those", "that")
    made["guides.md"] += guides_page()
    made["lc-pipeline.schema.json"] = json.dumps(json_schema(registry), indent=2) + "\n"
    return made


def commands_page() -> str:
    """Markdown with the help of each command."""
    context = click.Context(cli, info_name=NAME, terminal_width=100)
    parts = ["# Commands\n", f"```text\n{cli.get_help(context)}\n```\n"]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is not None:
            text = command.get_help(click.Context(command, parent=context, info_name=name))
            parts.append(f"## `{NAME} {name}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def guides() -> list[dict[str, Any]]:
    """Sections of what LimaCharlie's guides name, with what of ours does it; all names are whole."""
    sections: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(FOLDER.parent / "guides.yaml")
    for section in sections:
        for item in section["items"]:
            item["code"] = [
                name if name.startswith("pipeline.") else f"pipeline.limacharlie.{name}" for name in item["code"]
            ]
            item["test"] = [whole_test(name) for name in item["test"]]
            item.setdefault("command", [])
            item.setdefault("note", "")
    return sections


def whole_test(name: str) -> str:
    """``unit/room/file::test_it`` -> ``tests/unit/room/test_file.py::test_it``."""
    path, _, function = name.partition("::")
    folder, _, file = path.rpartition("/")
    return f"tests/{folder}/test_{file}.py::{function}"


def guides_page() -> str:
    """Markdown with a table for each section of the guides."""
    parts = ["# What LimaCharlie's guides name, and where it is here\n", GUIDES]
    for section in guides():
        parts.append(f"## {section['title']}\n\n| The guide | Here | Command | Tests |\n|---|---|---|---|")
        for item in section["items"]:
            code = ", ".join(f"`{name.removeprefix('pipeline.limacharlie.')}`" for name in item["code"])
            commands = ", ".join(f"`{NAME} {name}`" for name in item["command"])
            tests = ", ".join(
                f"[{function.removeprefix('test_').replace('_', ' ')}](../../{path})"
                for path, function in (name.split("::") for name in item["test"])
            )
            note = f". {item['note']}" if item["note"] else ""
            parts.append(f"| {item['guide']} | {code}{note} | {commands} | {tests} |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Write what changed, or with --check exit 1 when something would."""
    check = "--check" in sys.argv[1:]
    changed = []
    FOLDER.mkdir(exist_ok=True)
    for name, content in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            changed.append(name)
            if not check:
                path.write_text(content, encoding="utf-8")
    click.echo(f"{'Out of date' if check else 'Written'}: {', '.join(changed) or 'nothing'}.")
    sys.exit(1 if check and changed else 0)


if __name__ == "__main__":
    main()
