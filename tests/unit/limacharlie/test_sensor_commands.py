"""Checks of what is sent to sensors."""

import pytest

from pipeline.core.errors import UsageError
from pipeline.emulator.commands import COMMANDS
from pipeline.limacharlie.sensor_commands import SENSOR_COMMANDS, as_sensors_know, check


def test_the_same_commands_are_known_as_emulated():
    """What can be sent can be tried out."""
    assert set(COMMANDS) == set(SENSOR_COMMANDS)


@pytest.mark.parametrize(
    "text",
    [
        "os_version",
        "os_processes",
        "file_get /etc/hosts",
        r"file_get C:\x\y",
        'yara_scan "rule a { condition: true }"',
        r'run --shell-command "echo \"it\" \\"',
        "run --shell-command 'echo \"'",
    ],
)
def test_good_commands_pass(text):
    """Quotes as sensors read them."""
    assert check(text) == text.split()[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("os_verison", "Did you mean os_version"),
        ("os_info", "Did you mean os_version"),
        ("kill 4", "Did you mean os_kill_process"),
        ("/etc/hosts", "put it in quotes"),
        ("file_get", "lacks its arguments.*file_get FILE"),
        ("file_get '/etc", "not closed"),
        (r'dir_list "c:\my dir\"', "not closed"),
        ("", "not a known"),
    ],
)
def test_bad_commands_are_refused_with_a_remedy(text, problem):
    """Before anything is sent."""
    with pytest.raises(UsageError, match=problem):
        check(text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("os_info", "os_version"),
        ("kill 4", "os_kill_process -p 4"),
        ("kill --pid 4", "os_kill_process --pid 4"),
        ("mem_map 4", "mem_map -p 4"),
        ("mem_map -a abc", "mem_map -a abc"),
        ("hidden_module_scan", "hidden_module_scan"),
        ("file_get /etc/passwd", "file_get /etc/passwd"),
    ],
)
def test_what_guides_write_in_short_is_understood(text, sent):
    """Names and forms of LimaCharlie's guides become those that sensors know."""
    assert as_sensors_know(text) == sent


def test_what_is_unknown_stays_refused():
    """Only what guides write is translated."""
    with pytest.raises(UsageError, match="lacks its arguments"):
        as_sensors_know("kill")
    with pytest.raises(UsageError, match="not a known"):
        as_sensors_know("reboot")


def test_a_long_command_is_checked_quickly():
    """However many quotes it has."""
    with pytest.raises(UsageError):
        check("run " + "'\"" * 50_000)
