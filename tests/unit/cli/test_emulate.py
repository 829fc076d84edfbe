"""The mistakes that `lc-pipeline emulate` refuses to start with."""

import socket

import pytest

from .conftest import Run


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--rate", "nan"], "'--rate': nan is not a finite number."),
        (["--rate", "inf"], "'--rate': inf is not in the range"),
        (["--keepalive", "inf"], "'--keepalive': inf is not a finite number."),
        (
            ["--ready-file", "none/ready.json"],
            "Error: The file none/ready.json cannot be written: No such file or directory.\n  Where: --ready-file\n",
        ),
        (["--ledger", "file/x"], "Error: The folder file/x cannot be used: Not a directory.\n  Where: --ledger\n"),
        (
            ["--scenario", "none"],
            "Error: The file none cannot be read: No such file or directory.\n  Where: --scenario\n",
        ),
        (["--listen", "here"], "Error: 'here' is not an address.\n  Where: --listen\n"),
    ],
)
def test_mistakes(run: Run, tmp_path, args: list[str], said: str) -> None:
    """A value that cannot be used is told in a sentence, with exit code 4."""
    (tmp_path / "file").touch()
    done = run("emulate", *([] if "--listen" in args else ["--listen", "127.0.0.1:0"]), *args)
    assert (4, True) == (done.returncode, said in done.stderr), done.stderr


def test_a_port_that_is_taken(run: Run) -> None:
    """Who has the port is not known, but that it is taken is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("emulate", "--listen", address)
    said = f"Error: Cannot listen on {address}: Address already in use.\n  Where: --listen\n"
    assert (4, True) == (done.returncode, done.stderr.startswith(said)), done.stderr
