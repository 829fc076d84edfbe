"""`lc-pipeline completion`: scripts that let a shell complete commands, options, components and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pipeline.core.errors import UsageError

_SET_UP = {
    "bash": 'Put this line into ~/.bashrc:  eval "$(lc-pipeline completion bash)"',
    "zsh": 'Put this line, after compinit, into ~/.zshrc:  eval "$(lc-pipeline completion zsh)"',
    "fish": "Run this once:  lc-pipeline completion fish > ~/.config/fish/completions/lc-pipeline.fish",
}


@click.command(
    "completion",
    epilog="""\b
Examples:
  eval "$(lc-pipeline completion bash)"
  eval "$(lc-pipeline completion zsh)"
  lc-pipeline completion fish > ~/.config/fish/completions/lc-pipeline.fish""",
)
@click.argument("shell", type=click.Choice(list(_SET_UP)))
def command(shell: str) -> None:
    """Print a completion script for SHELL.

    Its last line says where it belongs.
    """
    from pipeline.cli import COMPLETE_VARIABLE, NAME, cli

    maker = get_completion_class(shell)
    if maker is None:
        raise UsageError(f"the installed click cannot make completions for {shell}", fix="Upgrade click.")
    click.echo(maker(cli, {}, NAME, COMPLETE_VARIABLE).source())
    click.echo(f"# {_SET_UP[shell]}")
