"""Messages, and telling one from its repetition."""

import orjson
import pytest

from pipeline.limacharlie.ai import message as module
from pipeline.limacharlie.ai.inbox import Inbox
from pipeline.limacharlie.ai.message import Seen, decode, parse, unfold


def frame(kind="assistant", at="2025-01-15T10:30:00Z", **payload):
    return {"type": kind, "timestamp": at, "session_id": "abc123", "payload": payload}


def test_raw_is_kept():
    """A message is kept as it came, byte for byte."""
    raw = b'{ "type":"user","payload":{"text":"\\u00e9"},"n":1.0 }'
    assert decode(raw).raw == raw
    assert decode(raw.decode()).raw == raw


def test_identity():
    """Type, time and payload make a message what it is, in whatever order its keys are written."""
    one = parse(frame(a=1, b={"c": 2, "d": 3}))
    assert one.id == parse({"payload": {"b": {"d": 3, "c": 2}, "a": 1}, **frame(a=1, b={"c": 2, "d": 3})}).id
    same = parse(dict(reversed(frame(b={"d": 3, "c": 2}, a=1).items())))
    assert one.id == same.id
    others = [frame(a=2), frame("user", a=1), frame(at="2025-01-15T10:30:01Z", a=1)]
    assert len({one.id, *(parse(other).id for other in others)}) == 4


def test_identity_of_the_end():
    """A session ends once, however often and when it is told."""
    first = parse(frame("session_end", reason="completed", exit_code=0))
    assert first.id == parse(frame("session_end", "2025-01-15T11:00:00Z", reason="completed")).id
    assert first.id != parse(frame("session_end", reason="completed") | {"session_id": "other"}).id


@pytest.mark.parametrize("raw", ["", "{", "[]", "null", "1", "{}", '{"type": 5}', '{"type": ""}', b"\xff", "[" * 3000])
def test_no_message(raw):
    """What is none is None."""
    assert decode(raw) is None


@pytest.mark.parametrize("depth", [250, 260, 1000])
def test_nested(depth):
    """A message that is nested too deep to mean anything is none, live and in a history, and no exception."""
    deep = b'{"type": "x", "timestamp": "", "payload": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    assert (depth < 254) == (decode(deep) is not None)
    past = unfold(decode(b'{"type": "history", "payload": {"messages": []}}'))
    assert [] == past
    assert (depth < 254) == (parse(orjson.loads(deep)) is not None)


def test_odd_fields():
    """Fields of another type than they should be are taken as absent."""
    odd = parse({"type": "x", "timestamp": 5, "payload": [1]})
    assert ("", {}) == (odd.timestamp, odd.payload)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, 5, {"type": "text", "text": "b"}]}, "ab"),
        ({"text": "hello"}, "hello"),
        ({"success": True, "summary": "done"}, "done"),
        ({"message": "why", "code": "rate_limited"}, "why"),
        ({"tool_use_id": "x", "content": "out"}, "out"),
        ({"n": 1}, ""),
    ],
)
def test_text(payload, text):
    """Each type has its words in a place of its own."""
    assert parse(frame(**payload)).text == text


def test_history():
    """A history is the messages in it, each the same as when it came alone."""
    entries = [frame(n=1), {"no": "message"}, frame(n=2)]
    found = unfold(parse(frame("history", messages=entries)))
    assert [parse(entry).id for entry in (entries[0], entries[2])] == [message.id for message in found]
    assert orjson.loads(found[0].raw) == entries[0]
    assert unfold(parse(frame("history", messages="?"))) == []


def test_repr_has_no_content():
    """A message in a log does not show what it says."""
    assert "s3cret" not in repr(parse(frame(text="s3cret")))


def test_memory_is_bounded(monkeypatch):
    """The oldest ids are forgotten first."""
    monkeypatch.setattr(module, "MEMORY", 2)
    seen = Seen(["a"])
    assert [False, True, True, True] == [seen.add(name) for name in "abca"]


async def test_inbox():
    """Messages come out in order, and then nothing any more."""
    inbox = Inbox()
    messages = [parse(frame(n=n)) for n in range(3)]
    assert [False] * 3 == [await inbox.put(message) for message in messages]
    inbox.close()
    assert [*messages, None] == [await inbox.get() for _ in range(4)]
