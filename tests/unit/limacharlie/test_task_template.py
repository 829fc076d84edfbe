"""A record fills a command's places with values, and with nothing else."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.commandline import split
from pipeline.limacharlie.task_template import MAX_VALUE, CommandTemplate, SelectorTemplate, UnfitError


def command(text, **event):
    return CommandTemplate(text).render({"event": event})


@pytest.mark.parametrize(
    ("template", "event", "line"),
    [
        ("os_processes", {}, "os_processes"),
        ("file_get {event/PATH}", {"PATH": "/etc/passwd"}, "file_get /etc/passwd"),
        ("file_get {event/PATH}", {"PATH": r"C:\Program Files\x.exe"}, r"file_get 'C:\Program Files\x.exe'"),
        ("file_get {event/PATH} -s 10", {"PATH": "it's"}, 'file_get "it\'s" -s 10'),
        (r"file_get C:\tmp\{event/NAME}", {"NAME": "a b"}, r"file_get 'C:\tmp\a b'"),
        ("mem_map -p {event/PID}", {"PID": 4}, "mem_map -p 4"),
        ('run --shell-command "taskkill /PID {event/PID}"', {"PID": 4}, 'run --shell-command "taskkill /PID 4"'),
        ("yara_scan 'rule a {{ condition: true }}'", {}, "yara_scan 'rule a { condition: true }'"),
    ],
)
def test_values_are_filled_in(template, event, line):
    """What needs no quotes has none; what does is quoted as sensors read it; the template's own words stay as written."""
    assert line == command(template, **event)


@pytest.mark.parametrize(
    ("template", "event", "reason"),
    [
        ("file_get {event/PATH}", {}, "missing_value"),
        ("file_get {event/PATH}", {"PATH": ""}, "missing_value"),
        ("file_get {event/PATH}", {"PATH": ["/etc"]}, "missing_value"),
        ("file_get {event/PATH}", {"PATH": "-o"}, "unsafe_value"),
        ("os_kill_process -p {event/PID}", {"PID": -1}, "unsafe_value"),
        ("file_get {event/PATH}", {"PATH": "a\nrestart"}, "unsafe_value"),
        ("file_get {event/PATH}", {"PATH": "a\x00"}, "unsafe_value"),
        ("file_get {event/PATH}", {"PATH": "a\u202eb"}, "unsafe_value"),
        ("file_get {event/PATH}", {"PATH": "a" * (MAX_VALUE + 1)}, "unsafe_value"),
        ("run --shell-command {event/LINE}", {"LINE": "rm -rf /"}, "unsafe_value"),
        ("run --shell-command {event/LINE}", {"LINE": "$(id)"}, "unsafe_value"),
        ('run --shell-command "kill {event/PID}"', {"PID": '1";reboot;"'}, "unsafe_value"),
        ('run --shell-command "kill {event/PID}"', {"PID": "1\\"}, "unsafe_value"),
        ("file_get '{event/PATH}'", {"PATH": "a b"}, "unsafe_value"),
    ],
)
def test_a_value_that_could_be_more_is_refused(template, event, reason):
    """Options, control characters, what a shell would read, and absent values make no command."""
    with pytest.raises(UnfitError) as caught:
        command(template, **event)
    assert reason == caught.value.reason


@pytest.mark.parametrize(
    "text",
    ["", "  ", "{event/NAME} x", "os_{event/NAME}", "file_get {event/X", "file_get }", "file_get 'x", "file_get {}"],
)
def test_bad_templates_are_mistakes(text):
    """Without a literal name, with something left open or without a path there is no template."""
    with pytest.raises(ValueError, match=r".+"):
        CommandTemplate(text)


@given(st.text(min_size=1, max_size=60) | st.text(string.punctuation + "ab ", min_size=1, max_size=20))
def test_a_value_is_one_word_or_refused(value):
    """Whatever a record says, the sensor reads the template's words and the value as it is, or there is no command."""
    try:
        line = command("file_mov {event/V} X{event/V}Y -x", V=value)
    except UnfitError:
        return
    assert ["file_mov", value, f"X{value}Y", "-x"] == split(line)


@given(st.text(string.printable, min_size=1, max_size=30))
def test_a_shell_gets_plain_values_only(value):
    """In the arguments of `run`, and inside of quotes, a value brings no character with a meaning to any shell."""
    for template in ('run --shell-command "a {event/V} b"', "run --shell-command a{event/V}", "file_get 'a {event/V}'"):
        try:
            line = command(template, V=value)
        except UnfitError:
            continue
        assert set(value) <= set(string.ascii_letters + string.digits + "._:/@-")
        assert value in line


def test_a_selector_quotes_its_values():
    """A value is a text of the selector's language, whatever it holds; inside of quotes only plain values are taken."""
    doc = {"a": {"HOST": "x` or plat == windows or `", "TAG": "prod"}}
    assert 'hostname == "x` or plat == windows or `"' == SelectorTemplate("hostname == {a/HOST}").render(doc)
    assert "`prod` in tags and plat == linux" == SelectorTemplate("{a/TAG} in tags and plat == linux").render(doc)
    assert "'prod-1' in tags" == SelectorTemplate("'{a/TAG}-1' in tags").render(doc)
    with pytest.raises(UnfitError):
        SelectorTemplate("hostname == '{a/HOST}'").render(doc)


@pytest.mark.parametrize("text", ["", " * ", "hostname == `x"])
def test_a_selector_says_which_sensors(text):
    """One for all sensors, or with an open quote, is a mistake."""
    with pytest.raises(ValueError, match=r".+"):
        SelectorTemplate(text)
