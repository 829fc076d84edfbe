"""AI sessions as others' clients drive them, against a real emulator process: the documents' JavaScript, and the official SDK."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

from .conftest import fetching

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "node"
WS = "ws@8.18.0"
PROMPT = "Hello! List the files in the current directory."
NO_SKIP = os.environ.get("CI", "").lower() in ("true", "1") or os.environ.get("LC_PIPELINE_NO_SKIP") == "1"


def unavailable(reason: str) -> None:
    if NO_SKIP:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Where Node finds `ws`; fetched once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        unavailable("No Node: install node and npm (Debian: apt install nodejs npm).")
    found = CACHE / "node_modules"
    with fetching("node"):
        if not (found / "ws").is_dir():
            CACHE.mkdir(exist_ok=True)
            options = ["--prefix", str(CACHE), "--no-audit", "--no-fund", "--ignore-scripts", "--no-save"]
            done = subprocess.run([npm, "install", *options, WS], capture_output=True, timeout=100, check=False)
            if done.returncode != 0:
                unavailable(f"No ws package for Node: {done.stderr.decode(errors='replace')[-500:]}")
    return found


def mint(ready: dict[str, Any]) -> str:
    form = urllib.parse.urlencode({"uid": ready["uid"], "secret": ready["user_api_key"]}).encode()
    with urllib.request.urlopen(ready["url"] + "/", form, timeout=10) as response:
        return json.load(response)["jwt"]


def gist(messages: list[dict[str, Any]]) -> list[Any]:
    """Messages without what differs from session to session."""
    kept = (
        "text",
        "content",
        "message",
        "name",
        "input",
        "success",
        "summary",
        "status",
        "reason",
        "exit_code",
        "model",
    )
    return [(one["type"], {key: one["payload"][key] for key in kept if key in one["payload"]}) for one in messages]


async def ours(ready: dict[str, Any]) -> list[dict[str, Any]]:
    """The same flow with our client."""
    section = LimaCharlieConfig(oid=ready["oid"], uid=ready["uid"], api_key=ready["user_api_key"], url=ready["url"])
    got = []
    async with LimaCharlie(section, environ={}) as account:
        session = await account.ai.sessions.create(allowed_tools=["Bash", "Read", "Write"])
        async with account.ai.attach(session.id) as live:
            await live.prompt(PROMPT)
            results = 0
            async for message in live.messages():
                got.append(json.loads(message.raw))
                if message.type == "result":
                    results += 1
                    if results == 1:
                        await live.prompt("a long one")
                    else:
                        await account.ai.sessions.terminate(session.id)
                elif message.text == "a long one":
                    await live.interrupt()
    return got


@pytest.mark.timeout(120)  # the first run fetches a package
def test_the_documents_javascript(emulator, node_modules):
    """The documents' complete flow runs with Node, and our client gets the same out of it."""
    process = emulator("--rate", "0")
    process.turn("ai_account")
    process.turn("ai_timing", ping=0.2, idle=2)
    process.turn("ai_script", match="a long one", steps=[{"wait": 600}])
    environment = {
        **os.environ,
        "NODE_PATH": str(node_modules),
        "JWT": mint(process.ready),
        "BASE_URL": process.ready["url"],
    }
    script = str(Path(__file__).with_name("session_flow.js"))
    done = subprocess.run(["node", script], env=environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[0][0] == "created"
    assert (201, "starting") == (told[0][1]["status"], told[0][1]["session"]["status"])
    assert ["status", "running"] == told[1]
    assert ["closed", {"code": 4100, "reason": "session ended"}] == told[-1]
    messages = [value for what, value in told if what == "message"]
    assert all({"type", "timestamp", "session_id", "payload"} == set(message) for message in messages)
    assert "session_end" == messages[-1]["type"]
    assert gist(messages) == gist(asyncio.run(ours(process.ready)))


SDK = """
import asyncio, json, os
from limacharlie.client import Client
from limacharlie.sdk.ai import AI
from limacharlie.sdk.ai_session import AttachmentForbidden
from limacharlie.sdk.organization import Organization

ready = json.loads(os.environ["READY"])
org = Organization(Client(oid=ready["oid"], api_key=os.environ.get("KEY", ready["api_key"])))
ai = AI(org)
ai._ai_url = ready["url"]  # it would take https for what the organization's list names
"""


def sdk(ready: dict[str, Any], script: str, **environment: str) -> Any:
    """Run a script with the SDK; gives the JSON that it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    fixed = {"LC_API_URL": ready["url"], "LC_JWT_URL": ready["url"], "LC_EPHEMERAL_CREDS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SDK + textwrap.dedent(script)],
        env=clean | fixed | {"READY": json.dumps(ready)} | environment,
        capture_output=True,
        timeout=18,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_sdk_account_and_sessions(emulator):
    """The SDK registers, logs in by browser and by key, and creates, lists, reads and ends a session."""
    process = emulator("--rate", "0")
    result = sdk(
        process.ready,
        """
        found = {"registered": ai.register_user(), "before": ai.claude_auth_status()}
        login = ai.claude_login_start()["oauth_session_id"]
        found["urls"] = [ai.claude_login_get_url(login)["status"] for _ in range(2)]
        found["code"] = ai.claude_login_submit_code(login, "the-code")
        found["oauth"] = ai.claude_auth_status()
        ai.claude_logout()
        found["key"] = ai.claude_set_apikey("sk-ant-api03-xxxxx")
        found["session"] = ai.create_user_session(name="chat", allowed_tools=["Bash"], max_turns=5)["session"]
        sid = found["session"]["id"]
        found["listed"] = [row["id"] for row in ai.list_user_sessions()] == [sid]
        found["got"] = ai.get_user_session(sid)["session"]["name"]
        found["history"] = ai.get_user_session_history(sid)["messages"]
        found["ended"] = ai.terminate_user_session(sid)
        print(json.dumps(found))
    """,
    )
    assert result["registered"]["registered"] is True
    assert {"has_credentials": False} == result["before"]
    assert ["pending", "url_ready"] == result["urls"]
    assert "completed" == result["code"]["status"]
    assert "oauth" == result["oauth"]["credential_type"]
    assert result["key"]["success"] is True
    assert "starting" == result["session"]["status"]
    assert result["listed"]
    assert "chat" == result["got"]
    assert {"terminated": True} == result["ended"]


def test_sdk_attachment(emulator):
    """The SDK attaches, is asked for a tool and a question, answers both, and sees the end."""
    process = emulator("--rate", "0")
    process.turn("ai_account")
    result = sdk(
        process.ready,
        """
        sid = ai.create_user_session()["session"]["id"]

        async def main():
            while ai.get_user_session(sid)["session"]["status"] == "starting":
                await asyncio.sleep(0.05)
            got = []
            async with ai.attach_session(sid) as attachment:
                await attachment.send_prompt("ask me, then list the files")
                async for message in attachment.messages():
                    got.append(message["type"])
                    payload = message["payload"]
                    if message["type"] == "ask_user_question":
                        await attachment.answer_question(payload["question_id"], {"How deep should I look?": "Quick"})
                    elif message["type"] == "tool_approval_request":
                        await attachment.approve_tool(payload["tool_use_id"], True, scope="session")
                    elif message["type"] == "result":
                        ai.terminate_user_session(sid)
                    elif message["type"] == "session_end":
                        # as the SDK's own command does; what follows, close code 4100, its WebSocket library raises as an error
                        return got

        print(json.dumps(asyncio.run(main())))
    """,
    )
    assert result[-1] == "session_end"
    wanted = ["user", "ask_user_question", "tool_use", "tool_approval_request", "tool_result", "result"]
    assert wanted == [kind for kind in result if kind in wanted]


def test_sdk_organization(emulator):
    """The SDK starts a session from an agent's definition, looks on at it, and reads its history and usage."""
    process = emulator("--rate", "0")
    result = sdk(
        process.ready,
        """
        from limacharlie.sdk.hive import Hive, HiveRecord

        definition = {"prompt": "Investigate.", "anthropic_secret": "sk-ant-literal", "one_shot": True, "name": "agent",
                      "allowed_tools": ["Bash"]}
        Hive(org, "ai_agent").set(HiveRecord("my-agent", data=definition))
        started = ai.start_session("my-agent", idempotent_key="k", data={"cat": "x"})
        again = ai.start_session("hive://ai_agent/my-agent", idempotent_key="k")
        sid = started["session_id"]

        async def main():
            while ai.get_session(sid)["session"]["status"] == "starting":
                await asyncio.sleep(0.05)
            try:
                await ai.attach_session(sid).connect()
                forbidden = False
            except AttachmentForbidden:
                forbidden = True
            got = []
            async with ai.attach_session(sid, read_only=True) as attachment:
                async for message in attachment.messages():
                    got.append(message["type"])
                    if message["type"] == "session_end":
                        return forbidden, got

        forbidden, got = asyncio.run(main())
        found = {"same": again["session_id"] == sid, "forbidden": forbidden, "got": got}
        found["listed"] = [row["id"] for row in ai.list_sessions()] == [sid]
        found["history"] = len(ai.get_session_history(sid)["messages"])
        found["session"] = ai.get_session(sid)["session"]
        found["usage"] = ai.get_usage(ai.list_usage_identities()["identities"][0])
        found["terminated"] = ai.terminate_session(sid)
        print(json.dumps(found))
    """,
    )
    assert result["same"]
    assert result["forbidden"]
    assert result["listed"]
    assert "session_end" == result["got"][-1]
    assert result["history"] >= 8
    assert ("ended", "completed", "agent") == tuple(result["session"][key] for key in ("status", "end_reason", "name"))
    assert result["usage"]["usage"][0]["input_tokens"] > 0
