"""The frame of the command line: help, errors, exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline import cli
from pipeline.core import errors

from .conftest import Run

OUTCOMES = [
    (errors.ConfigError("x"), 4),
    (errors.UsageError("x"), 4),
    (errors.AuthenticationError("x"), 2),
    (errors.PermissionDeniedError("x"), 2),
    (errors.NotFoundError("x"), 3),
    (errors.RateLimitedError("x"), 5),
    (errors.UnavailableError("x"), 1),
    (ExceptionGroup("x", [errors.NotFoundError("x"), errors.NotFoundError("y")]), 3),
    (ExceptionGroup("x", [errors.NotFoundError("x"), errors.ConfigError("y")]), 1),
    (BaseExceptionGroup("x", [KeyboardInterrupt(), errors.ConfigError("y")]), 130),
    (KeyboardInterrupt(), 130),
    (click.Abort(), 130),
    (click.UsageError("x"), 4),
    (click.exceptions.Exit(7), 7),
    (ZeroDivisionError("x"), 1),
    (EOFError("x"), 1),
]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `fail` that raises what a test puts into this list, or returns 9 without."""
    outcome: list[BaseException] = []

    @click.command("fail")
    def command() -> int:
        if outcome:
            raise outcome[0]
        return 9

    module = type(sys)("fails")
    module.command = command  # type: ignore[attr-defined]  # a module made for this test
    monkeypatch.setitem(sys.modules, "fails", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", ("fails", "Fail."))  # type: ignore[arg-type]  # grows for this test
    return outcome


@pytest.mark.parametrize(("error", "code"), OUTCOMES)
def test_exit_codes(fails: list[BaseException], error: BaseException, code: int) -> None:
    """Each error ends the process with the exit code of its kind."""
    fails.append(error)
    assert cli.invoke(["fail"]) == code


def test_a_command_may_return_its_exit_code(fails: list[BaseException]) -> None:
    """What a command returns is the exit code."""
    assert cli.invoke(["fail"]) == 9


def test_an_error_has_its_parts(fails: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    """What, where and fix stand on stderr, each in a line, without colour where there is no terminal."""
    fails.append(errors.AuthenticationError("the key is revoked", where="sources.x", fix="Make a new one."))
    cli.invoke(["fail"])
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Error: The key is revoked.\n  Where: sources.x\n  Fix:   Make a new one.\n")


def test_the_unexpected_is_one_line(fails: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    """A bug shows no traceback but how to get it."""
    fails.append(ZeroDivisionError("a\nb"))
    cli.invoke(["fail"])
    err = capsys.readouterr().err
    assert "Unexpected ZeroDivisionError: a b." in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("args", "variable"), [(["--debug", "fail"], ""), (["fail", "--debug"], ""), (["fail"], "1")])
def test_traceback_on_demand(
    fails: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    variable: str,
) -> None:
    """--debug, before or after the command, or LC_PIPELINE_DEBUG shows where it happened."""
    monkeypatch.setenv("LC_PIPELINE_DEBUG", variable)
    fails.append(ZeroDivisionError("x"))
    cli.invoke(args)
    assert "Traceback" in capsys.readouterr().err


def test_texts_of_others_cannot_steer_the_terminal(
    fails: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """Control and bidirectional characters in an error are escaped."""
    fails.append(errors.UnavailableError("a\x1b[2Jb\u202ec", where="d\x07", fix="e\x9b"))
    cli.invoke(["fail"])
    err = capsys.readouterr().err
    assert all(sign.isprintable() or sign == "\n" for sign in err)
    assert "A\\x1b[2Jb\\u202ec." in err


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ([], 0, "Commands:"),
        (["--help"], 0, "Examples:"),
        (["--version"], 0, "lc-pipeline "),
        (["rnu"], 4, "Did you mean run?"),
        (["--nope"], 4, "No such option"),
        (["validate"], 4, "Missing argument"),
        (["validate", "missing.yaml"], 4, "cannot be read"),
        (["--log-level", "loud", "list"], 4, "loud"),
        (["completion", "tcsh"], 4, "tcsh"),
        (["list", "kafak"], 3, "Did you mean kafka?"),
    ],
)
def test_command_lines(run: Run, args: list[str], code: int, text: str) -> None:
    """Help succeeds, and mistakes in the command line are exit code 4, not click's 2."""
    done = run(*args)
    assert (done.returncode, True) == (code, text in done.stdout + done.stderr)


def test_help_imports_nearly_nothing(run: Run) -> None:
    """`--help` reads no model, no component and no library besides click: it must be quick."""
    code = (
        "import sys; from pipeline.cli import invoke; invoke(['--help']);"
        "print(len(sys.modules), *sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, *packages = done.stderr.split()
    assert {"pydantic", "ruamel", "aiohttp", "asyncio", "structlog", "orjson"}.isdisjoint(packages)
    assert int(count) < 160


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    """Who stops reading our output gets no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from pipeline.cli import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=15
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    """Ctrl-C while a configuration is being read ends with 130 and without a word."""
    fifo = tmp_path / "lc.yaml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "validate", str(fifo)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with fifo.open("wb"):  # returns when the process has opened it, too
        process.send_signal(signal.SIGINT)
    # The end of the file wakes a process that the signal reached in the moment before it began to read.
    _, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (130, b"")
