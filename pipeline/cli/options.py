"""Options and arguments that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import click

if TYPE_CHECKING:  # the models behind it would make `--help` slow
    from pipeline.config.model import LogConfig


class Options(TypedDict, total=False):
    """The global options, as ``ctx.obj`` (`click.pass_obj`). What was not given is absent."""

    debug: bool
    log_level: str
    log_format: Literal["auto", "json", "console"]


def configure_log(options: Options, section: LogConfig | None = None) -> None:
    """Set up logging: options first, then the configuration's `log` section, then the defaults."""
    from pipeline.kit import log

    level = options.get("log_level") or (section.level if section else "info")
    log.configure(level, options.get("log_format") or (section.format if section else "auto"))


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        ctx.ensure_object(dict)[parameter.name] = value


def add_to(command: click.Command) -> None:
    """Give a command the global options, so that they may stand before and after its name. May be called again."""
    present = {parameter.name for parameter in command.params}
    for name, kind, text in (
        ("log_level", click.Choice(["debug", "info", "warning", "error"]), "The least that is written to the log."),
        (
            "log_format",
            click.Choice(["auto", "json", "console"]),
            "How the log is written; auto looks at the terminal.",
        ),
        ("debug", None, "Show a traceback when something unexpected happens."),
    ):
        if name not in present:
            flag = "--" + name.replace("_", "-")
            option = click.Option(
                [flag], type=kind, is_flag=kind is None, expose_value=False, callback=_keep, help=text
            )
            command.params.append(option)


config_argument = click.argument("config", type=click.Path(path_type=Path))
"""The configuration file of a command."""


class Number(click.FloatRange):
    """A finite number in a range: a comparison alone lets `nan` pass, and `inf` where there is no upper end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Seconds(click.ParamType):
    """A duration as people write it, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from pipeline.core.types import parse_duration

        try:
            seconds = float(parse_duration(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}.", param, ctx)
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is no time to wait.", param, ctx)
        return seconds
