"""Writes docs/reference from the models and commands; with --check only says whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from pipeline.cli import COMMANDS, NAME, cli
from pipeline.config.reference import components_page, json_schema, sections_page
from pipeline.config.registry import KINDS, Registry

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the docstrings in the code: change those. -->\n\n"


def pages() -> dict[str, str]:
    """File name -> content of the whole reference."""
    registry = Registry(installed=False)
    made = {f"{kind}.md": NOTE + components_page(registry, kind) for kind in KINDS}
    made["sections.md"] = NOTE + sections_page()
    made["commands.md"] = NOTE + commands_page()
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
