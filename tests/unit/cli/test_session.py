"""`lc-pipeline session`, against a local LimaCharlie that a process of its own serves."""

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import urllib.request

import pytest

OWN_TERMINAL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pipeline.cli import main
main()
"""
"""Keys like Ctrl-C are signals only on the terminal that a process calls its own."""
LC = [sys.executable, "-c", "from pipeline.cli import main; main()"]


class Lab:
    """The emulator, and the command line with a user's key of it."""

    def __init__(self, ready):
        self.url = ready["url"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "_LC_", "NO_COLOR"))}
        shared = clean | {"LC_URL": ready["url"], "LC_OID": ready["oid"], "LC_EPHEMERAL_CREDS": "1", "TERM": "xterm"}
        self.user = shared | {"LC_UID": ready["uid"], "LC_API_KEY": ready["user_api_key"]}
        self.key = shared | {"LC_API_KEY": ready["api_key"]}
        self.turn("ai_account")
        self.turn("ai_timing", pace=0.01)

    def turn(self, knob, **arguments):
        request = urllib.request.Request(f"{self.url}/_emulator/{knob}", json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def run(self, *args, keys="", env=None):
        return subprocess.run(
            [*LC, "session", *args],
            input=keys,
            capture_output=True,
            text=True,
            env=env or self.user,
            timeout=18,
            check=False,
        )

    def begun(self, *args):
        done = self.run("start", "--detach", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def emulator(tmp_path):
    """Each test has its own: ten sessions may be begun in a minute."""
    ready = tmp_path / "ready.json"
    args = ["emulate", "--listen", "127.0.0.1:0", "--rate", "0", "--events", "0", "--ready-file", str(ready)]
    with subprocess.Popen([*LC, *args], stderr=subprocess.DEVNULL) as process:
        try:
            while not ready.exists() or not ready.read_text():
                assert process.poll() is None
                time.sleep(0.05)  # another process, which has no event to wait for
            yield json.loads(ready.read_text())
        finally:
            process.terminate()


@pytest.fixture
def lab(emulator):
    one = Lab(emulator)
    yield one
    one.turn("ai_end")
    one.turn("clear")


class Terminal:
    """A command on a terminal of its own, with the keys of a person."""

    def __init__(self, env, *args):
        self.fd, theirs = pty.openpty()

        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, "session", *args], stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )
        os.close(theirs)
        self.seen = ""

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def wait(self, pattern):
        """Read until a pattern is there, and forget what came up to it."""
        end = time.monotonic() + 15
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # the terminal is gone with its last process
                pytest.fail(f"the process ended without {pattern!r}: {self.seen!r}")
        self.seen = self.seen[found.end() :]
        return found

    def end(self):
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 65536):
                self.seen += data.decode(errors="replace")
        return self.process.wait(10)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal():
    started = []

    def start(env, *args):
        started.append(Terminal(env, *args))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.timeout(60)  # a dozen processes, one after the other
def test_a_session_from_its_start_to_its_end(lab):
    """`start --detach` prints an id that `list` shows and `history` has the transcript of; `end` ends and deletes it."""
    session = lab.begun("--name", "night", "--allow", "Bash", "list the files")
    (found,) = [one for one in json.loads(lab.run("list", "--json").stdout) if one["id"] == session]
    assert (found["name"], found["status"]) == ("night", "running")
    assert session in lab.run("list").stdout
    deadline = time.monotonic() + 10
    while "Done." not in (text := lab.run("history", session).stdout):
        assert time.monotonic() < deadline, text
    assert "> list the files" in text
    assert "· Bash ls -la" in text
    assert "  total 16 … 2 more lines" in text
    assert "✓ Done." in text
    assert "drwxr-xr-x" not in text
    assert "drwxr-xr-x" in lab.run("history", session, "--full").stdout
    types = [json.loads(line)["type"] for line in lab.run("history", session, "--json").stdout.splitlines()]
    assert {"user", "assistant", "tool_use", "tool_result", "result"} <= set(types)
    assert lab.run("end", session, "--delete").stdout == f"Ended and deleted: {session}.\n"
    gone = lab.run("history", session)
    assert gone.returncode == 3


@pytest.mark.timeout(60)
def test_prompts_from_a_pipe_and_the_end_of_the_session(lab):
    """Lines of a pipe are prompts; without a terminal there is no colour, and the end of the session ends the command."""
    lab.turn("ai_script", match="finish", steps=[{"say": "It is over."}, {"result": "All done."}, {"end": "completed"}])
    done = lab.run("start", keys="finish\n")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[lines.index("> finish") :] == [
        "> finish", "It is over.", "✓ All done.", "The session has ended: completed.",
    ]  # fmt: skip


@pytest.mark.timeout(60)
def test_a_line_that_is_too_long(lab):
    """A line of a pipe that is too long is left out in words, and the next one is taken."""
    lab.turn("ai_script", match="finish", steps=[{"result": "All done."}, {"end": "completed"}])
    done = lab.run("start", keys="x" * 3_000_000 + "\nfinish\n")
    assert done.returncode == 0, done.stderr
    assert "A line of more than 1,048,576 bytes is left out" in done.stderr
    assert "✓ All done." in done.stdout


@pytest.mark.timeout(60)
def test_a_prompt_while_an_approval_waits(lab):
    """From a pipe, what is no answer to the approval that waits is a prompt: nobody is there to say it again."""
    lab.turn("ai_script", match="finish", steps=[{"result": "All done."}, {"end": "completed"}])
    lab.turn("ai_script", match="dangerous", steps=[{"tool": "Bash", "input": {"command": "id"}, "approval": True}])
    command = [*LC, "session", "start", "dangerous"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=lab.user) as process:
        for line in process.stdout:
            if "May it use Bash" in line:
                break
        process.stdin.write("finish\ny\n")
        process.stdin.close()
        rest = process.stdout.read()
        assert process.wait(10) == 0
    assert "> finish" in rest
    assert "✓ All done." in rest


@pytest.mark.timeout(60)
def test_the_transcript_as_json(lab):
    """With --json each message is a line as LimaCharlie sent it; a session that failed is exit code 1."""
    lab.turn("ai_script", match="crash", steps=[{"fail": "no memory"}])
    done = lab.run("start", "--json", "crash")
    assert done.returncode == 1
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"type", "timestamp", "session_id", "payload"} == set(messages[-1])
    assert [one["type"] for one in messages][-3:] == ["session_error", "error", "session_end"]


@pytest.mark.timeout(60)
def test_a_person_speaks_approves_and_answers(lab, terminal):
    """On a terminal typed lines are prompts, and answers where the assistant waits for one; Ctrl-D leaves, the session goes on."""
    session = lab.begun()
    one = terminal(lab.user, "attach", session)
    one.wait("Type to speak")
    one.press("ask me, and fetch it\n")
    one.wait("How deep should I look")
    one.wait("2. Thorough")
    one.press("2\n")
    one.wait("The user answered: Thorough")
    one.wait("May it use WebFetch https://example.com/ioc")
    one.wait("n to deny it")
    one.press("maybe\n")
    one.wait("Please answer y, a or n")
    one.press("n not that site\n")
    one.wait(r"denied the use of WebFetch\. not that site")
    one.wait("✓ Done")
    one.press("\x04")
    one.wait("You left; the session goes on")
    assert one.end() == 0
    (found,) = [each for each in json.loads(lab.run("list", "--json").stdout) if each["id"] == session]
    assert found["status"] == "running"


@pytest.mark.timeout(60)
def test_ctrl_c_interrupts_the_assistant_and_then_leaves(lab, terminal):
    """The first Ctrl-C stops what the assistant does, the second one leaves; the session goes on, and the exit code is 0."""
    lab.turn("ai_script", match="dig", steps=[{"say": "Digging."}, {"wait": 600}])
    session = lab.begun()
    one = terminal(lab.user, "attach", session)
    one.wait("Type to speak")
    one.press("dig\n")
    one.wait("Digging")
    one.press("\x03")
    one.wait("Ctrl-C again leaves")
    one.wait("(?i)interrupted")
    one.press("\x03")
    one.wait("You left")
    assert one.end() == 0


@pytest.mark.timeout(60)
def test_ctrl_c_while_the_session_starts(lab, terminal):
    """Ctrl-C leaves a session that does not run yet at once, and says that it was told nothing."""
    lab.turn("ai_timing", start=300)
    try:
        for args in ((), ("--detach",)):
            one = terminal(lab.user, "start", *args, "hello")
            one.wait("does not run yet")
            one.press("\x03")
            one.wait("told nothing")
            assert one.end() == 1
            lab.turn("ai_end")
    finally:
        lab.turn("ai_timing", start=0.2)


@pytest.mark.timeout(60)
def test_a_terminal_is_not_steered_by_json(lab, terminal):
    """On a terminal --json is ASCII only; in a pipe a message that came over several lines is one."""
    session = lab.begun()
    lab.turn("ai_emit", session_id=session, type="assistant", payload={"content": "a\u009b2Jb\u202e"})
    lab.turn("ai_emit", session_id=session, raw='{"type":"x",\n"timestamp":"now",\r\n"payload":{}}')
    one = terminal(lab.user, "history", session, "--json")
    one.wait(re.escape("a\\u009b2Jb\\u202e"))
    assert one.end() == 0
    lab.turn("ai_end", session_id=session)
    lines = lab.run("attach", session, "--json").stdout.splitlines()
    assert "x" in [json.loads(line)["type"] for line in lines]


@pytest.mark.timeout(60)
def test_what_needs_no_answer_any_more_is_not_asked(lab, terminal):
    """After an interrupt, and in the history of a session, an approval is not waited for: what is typed is a prompt."""
    session = lab.begun()
    one = terminal(lab.user, "attach", session)
    one.wait("Type to speak")
    one.press("fetch it\n")
    one.wait("n to deny it")
    one.press("\x03")
    one.wait("(?i)interrupted by the user")
    one.press("list the files\n")
    one.wait("n to deny it")
    one.press("y\n")
    one.wait("✓ Done")
    one.press("\x04")
    assert one.end() == 0
    two = terminal(lab.user, "attach", session)
    two.wait("✓ Done")
    two.press("read it\n")
    two.wait("May it use Read")
    two.wait("n to deny it")
    two.press("y\n")
    two.wait("✓ Done")


@pytest.mark.timeout(60)
def test_sessions_of_the_organization_are_looked_at(lab):
    """A session of the organization is followed read-only, also where --org was forgotten; what it is asked is not lost in silence."""
    lab.turn(
        "ai_script", match="verdict", steps=[{"say": "Looking."}, {"result": "Verdict: fine."}, {"end": "completed"}]
    )
    lab.turn("ai_timing", start=1.0)
    body = json.dumps({"prompt": "a verdict", "anthropic_key": "sk-ant-x", "trigger_source": "test"}).encode()
    headers = {"Authorization": f"Bearer {lab.key['LC_API_KEY']}", "X-LC-OID": lab.key["LC_OID"]}
    request = urllib.request.Request(
        f"{lab.url}/v1/api/sessions", body, {**headers, "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        session = json.load(response)["session_id"]
    done = lab.run("attach", session, env=lab.key)
    assert done.returncode == 0, done.stderr
    assert "✓ Verdict: fine." in done.stdout
    assert session in lab.run("list", "--org", env=lab.key).stdout


@pytest.mark.timeout(60)
def test_a_fork_goes_on_with_a_prompt(lab):
    """`fork` of a session that has ended begins another one with the prompt; one that runs is refused with the reason."""
    lab.turn("ai_script", match="again", steps=[{"result": "Once more."}, {"end": "completed"}])
    session = lab.begun("hello")
    refused = lab.run("fork", session, "again")
    assert refused.returncode != 0
    assert "cannot be forked" in refused.stderr
    lab.run("end", session)
    done = lab.run("fork", session, "again")
    assert done.returncode == 0, done.stderr
    assert "✓ Once more." in done.stdout
    assert session not in done.stderr


@pytest.mark.timeout(60)
def test_what_cannot_be_is_said(lab):
    """An unknown session is exit code 3, a key of the organization cannot begin a user's session, options that clash are named."""
    unknown = lab.run("attach", "00000000-0000-4000-8000-00000000dead")
    assert unknown.returncode == 3
    assert "There is no such session" in unknown.stderr
    clash = lab.run("start", "--agent", "triage", "--profile", "p1")
    assert clash.returncode == 4
    assert "--profile" in clash.stderr
    assert lab.run("end", "x", "--org", "--delete").returncode == 4
