"""Every type of message and every error code that LimaCharlie documents arrives as it is."""

import pytest

from pipeline.limacharlie.ai.follow import URLS

DOCUMENTED = {
    "assistant": {"content": [{"type": "text", "text": "Here are the files"}], "model": "claude-sonnet-4-20250514"},
    "tool_use": {"id": "tool_abc123", "name": "Bash", "input": {"command": "ls -la"}},
    "tool_result": {"tool_use_id": "tool_abc123", "content": "total 16"},
    "user": {"text": "List all files in the current directory"},
    "system": {"message": "Working directory: /workspace"},
    "result": {"success": True, "summary": "Listed directory contents successfully"},
    "session_status": {"status": "running"},
    "session_end": {"reason": "completed", "exit_code": 0},
    "session_error": {"error": "Claude process died unexpectedly", "details": "Exit code: 1"},
    "error": {"message": "Rate limit exceeded", "code": "rate_limited"},
    "upload_url": {"request_id": "req_123", "upload_id": "u", "url": "https://storage.example/x?sig=secret"},
    "download_url": {"request_id": "req_456", "url": "https://storage.example/x?sig=secret"},
    "tool_approval_request": {"tool_use_id": "t", "tool_name": "Write", "tool_input": {}},
    "ask_user_question": {"question_id": "q", "questions": [{"question": "How deep?"}]},
    "usage_delta": {"input_tokens": 1},
    "sdk_session_id": {"id": "x"},
}
ERROR_CODES = ("session_not_found", "session_not_running", "session_crashed", "invalid_message", "rate_limited")


@pytest.mark.parametrize("kind", DOCUMENTED)
async def test_message_types(ai, cloud, running, read, kind):
    """A message of each type is given with its payload; those with signed URLs are kept back."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_emit", session_id=session.id, type=kind, payload=DOCUMENTED[kind])
        cloud.turn("ai_end", session_id=session.id)
        await reader.task
        got = [message for message in reader.got if message.type == kind and message.payload.get("n") == 0]
        assert [{**DOCUMENTED[kind], "n": 0}] * (kind not in URLS) == [message.payload for message in got]


@pytest.mark.parametrize("code", ERROR_CODES)
async def test_error_codes(ai, cloud, running, read, code):
    """An error of each code is given with its words, and does not end the following."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_emit", session_id=session.id, type="error", payload={"code": code, "message": "In words."})
        error = await reader.until("error")
        assert (code, "In words.") == (error.payload["code"], error.text)
        cloud.turn("ai_emit", session_id=session.id, type="assistant", payload={"text": "after"})
        await reader.until("assistant")
