"""What goes on in a session: prompts in, a scripted transcript out, tools and questions that wait for the user."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from pipeline.emulator.ai_session import Doc, Session, new_id, stamp
from pipeline.emulator.ai_state import Ai

DEFAULT_MODELS = {
    "anthropic": "claude-sonnet-4-20250514",
    "openai": "gpt-5.2",
    "google": "gemini-3.7-flash",
    "openrouter": "openai/gpt-5-mini",
}
LISTING = (
    "total 16\n-rw-r--r-- 1 user user 30 Jan 15 10:00 output.txt\ndrwxr-xr-x 2 user user 4096 Jan 15 10:00 uploads"
)


def script_for(prompt: str) -> list[Doc]:
    """What the assistant does for a prompt that no knob has a script for; certain words bring tools and questions."""
    asked = prompt.lower()
    steps: list[Doc] = [{"say": f"I will look into it: {_first_line(prompt)}"}]
    if "ask me" in asked:
        steps.append(
            {
                "ask": [
                    {
                        "question": "How deep should I look?",
                        "header": "Depth",
                        "options": [{"label": "Quick"}, {"label": "Thorough"}],
                    }
                ]
            }
        )
    if "fetch" in asked:
        steps.append({"tool": "WebFetch", "input": {"url": "https://example.com/ioc"}, "result": "No match."})
    if "write" in asked:
        steps.append({"tool": "Write", "input": {"file_path": "/workspace/report.md", "content": prompt}})
    if "read" in asked:
        steps.append({"tool": "Read", "input": {"file_path": "/workspace/output.txt"}})
    if not steps[1:] or "list" in asked:
        steps.append({"tool": "Bash", "input": {"command": "ls -la"}, "result": LISTING})
    verdict = " Verdict: suspicious, needs a person." if re.search(r"verdict|detect", asked) else ""
    steps += [{"say": f"I have looked at what was asked for.{verdict}"}, {"result": f"Done.{verdict}"}]
    return steps


async def run(ai: Ai, session: Session) -> None:
    """Live the life of a session until it ends or is ended."""
    if ai.timing.start is None:
        await asyncio.sleep(ai.timing.start_limit)
        ai.finish(session, "startup_timeout", exit_code=1, error="the session did not start in time")
        return
    await asyncio.sleep(ai.timing.start)
    session.status, session.started_at = "running", stamp()
    session.emit("session_status", {"status": "running"})
    session.emit("system", {"message": "Working directory: /workspace"})
    ttl = session.profile.get("ttl_seconds")
    try:
        async with asyncio.timeout(ttl if isinstance(ttl, int | float) and ttl > 0 else None):
            await _serve(ai, session)
    except TimeoutError:
        ai.finish(session, "max_duration_exceeded")


async def _serve(ai: Ai, session: Session) -> None:
    if session.prompt:
        await _turn(ai, session, session.prompt)
        if session.profile.get("one_shot") and session.status == "running":
            ai.finish(session, "completed")
    while session.status == "running":
        await _turn(ai, session, await session.prompts.get())


async def _turn(ai: Ai, session: Session, prompt: str) -> None:
    """Answer one prompt in a task of its own, which an interrupt cancels."""
    session.turn = asyncio.create_task(_answer(ai, session, prompt))
    try:
        await asyncio.wait({session.turn})
        if session.turn.cancelled():
            session.emit("result", {"success": False, "summary": "Interrupted by the user"})
        else:
            session.turn.result()
    finally:
        session.turn.cancel()
        session.turn = None
        session.answers.clear()


async def _answer(ai: Ai, session: Session, prompt: str) -> None:
    session.turns += 1
    session.emit("user", {"text": prompt})
    steps = next((steps for text, steps in ai.scripts if text in prompt), None) or script_for(prompt)
    tokens = len(prompt) // 4
    for step in steps:
        await asyncio.sleep(ai.timing.pace)
        tokens += 20
        if session.status != "running":
            return
        await _step(ai, session, step)
    session.input_tokens += tokens
    session.output_tokens += tokens // 2
    session.emit("usage_delta", {"input_tokens": tokens, "output_tokens": tokens // 2, "cost_usd": session.cost_usd})


async def _step(ai: Ai, session: Session, step: Doc) -> None:
    if "say" in step:
        model = session.profile.get("model") or DEFAULT_MODELS[session.provider]
        session.emit("assistant", {"content": [{"type": "text", "text": str(step["say"])}], "model": model})
    elif "tool" in step:
        await _tool(ai, session, step)
    elif "ask" in step:
        answer = await _word(
            session, new_id("question_"), "ask_user_question", {"questions": step["ask"]}, "question_id"
        )
        chosen = ", ".join(map(str, (answer.get("answers") or {}).values()))
        session.emit("system", {"message": f"The user answered: {chosen}"})
    elif "wait" in step:
        await asyncio.sleep(float(step["wait"]))
    elif "emit" in step:
        session.emit(str(step["emit"]), dict(step.get("payload") or {}))
    elif "result" in step:
        session.emit("result", {"success": bool(step.get("success", True)), "summary": str(step["result"])})
    elif "fail" in step:
        crash(ai, session, str(step["fail"]))
    elif "end" in step:
        ai.finish(session, step["end"])


def crash(ai: Ai, session: Session, error: str) -> None:
    """The session's process dies."""
    session.emit("session_error", {"error": error, "details": "Exit code: 1"})
    session.emit("error", {"code": "session_crashed", "message": error})
    ai.finish(session, "failed", exit_code=1, error=error)


async def _tool(ai: Ai, session: Session, step: Doc) -> None:
    """Use a tool: at once if it is allowed, never if it is denied, else when the user says so."""
    name, given = str(step["tool"]), dict(step.get("input") or {})
    use = new_id("tool_")
    session.emit("tool_use", {"id": use, "name": name, "input": given})
    await asyncio.sleep(ai.timing.pace)
    refusal = ""
    if _listed(session.denied_tools, name, given):
        refusal = f"The tool {name} is denied."
    elif not step.get("approval") and (
        _listed(session.allowed_tools, name, given) or session.profile.get("permission_mode") == "bypassPermissions"
    ):
        pass
    else:
        word = await _word(
            session, use, "tool_approval_request", {"tool_name": name, "tool_input": given}, "tool_use_id"
        )
        if not word.get("approved"):
            refusal = f"The user denied the use of {name}. {word.get('message') or ''}".strip()
        elif word.get("approval_scope") == "session":
            session.profile["allowed_tools"] = [*session.allowed_tools, word.get("approval_pattern") or name]
        if isinstance(word.get("updated_input"), dict):
            given = word["updated_input"]
    result: Doc = {"tool_use_id": use, "content": refusal or step.get("result") or _work(session, name, given)}
    session.emit("tool_result", {**result, "is_error": True} if refusal else result)


async def _word(session: Session, identity: str, kind: str, payload: Doc, key: str) -> Doc:
    """Ask the user and wait for the answer."""
    answer: asyncio.Future[Doc] = asyncio.get_running_loop().create_future()
    session.answers[identity] = answer
    session.emit(kind, {key: identity, **payload})
    return await answer


def _listed(tools: list[str], name: str, given: Doc) -> bool:
    """Whether a list names the tool, by ``Bash``, ``Bash(cat:*)``, ``mcp__vt__*`` or ``*``."""
    for tool in tools:
        plain, _, pattern = tool.partition("(")
        if plain not in (name, "*") and not (plain.endswith("*") and name.startswith(plain[:-1])):
            continue
        prefix = pattern.removesuffix(")").removesuffix("*").removesuffix(":")
        if str(next(iter(given.values()), "")).startswith(prefix):
            return True
    return False


def _work(session: Session, name: str, given: dict[str, Any]) -> str:
    path = str(given.get("file_path", ""))
    if name == "Write" and path.startswith("/workspace/"):
        session.files[path] = str(given.get("content", "")).encode()
        return f"File created: {path}"
    if name == "Read":
        found = session.files.get(path)
        return found.decode("utf-8", "replace") if found is not None else f"File does not exist: {path}"
    return f"{name} is done."


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:200] if lines else ""
