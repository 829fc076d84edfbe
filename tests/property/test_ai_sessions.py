"""What goes into prompts and names of AI sessions, and what comes out of them as records, whatever others write."""

import json
import re
import unicodedata

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limacharlie.ai.message import decode
from pipeline.limacharlie.ai.opened import MAX_NAME, Opened
from pipeline.limacharlie.ai.prompt import MAX_RECORD, MAX_TITLE, MAX_VALUE, PromptTemplate, Subject
from pipeline.limacharlie.ai.record import make_record
from pipeline.limacharlie.ai.sessions import SessionInfo

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=400)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
names = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True)


@given(st.text(max_size=80))
def test_a_template_is_a_mistake_or_renders(text):
    """Any text is refused as a template, or gives a prompt and a short name of one line."""
    try:
        template = PromptTemplate(text)
    except ValueError:
        return
    subject = Subject({}, b"{}")
    assert template.render(subject)
    title = template.title(subject)
    assert len(title) <= MAX_TITLE
    assert "\n" not in title


@given(st.text(alphabet=st.characters(exclude_characters="{}"), min_size=1, max_size=80).filter(str.strip))
def test_literal_text_stays(text):
    """What is no place is in the prompt as it is written; a double brace is one."""
    assert PromptTemplate("{{" + text + "}}").render(Subject({}, b"")).endswith("{" + text + "}")


@given(values, st.binary(max_size=300))
def test_records_stay_data(value, more):
    """Whatever a record says: one quoted line for a value, one pair of marks for a record, nothing unseen, nothing without bound."""
    payload = orjson.dumps({"a": {"b": value}}, option=orjson.OPT_NON_STR_KEYS) + more
    prompt = PromptTemplate("{a/b}{{|}}{record}").render(Subject({"a": {"b": value}}, payload))
    nonce = re.findall(r"<data (\w{16})>", prompt)[0]
    assert 2 == prompt.count(f"<data {nonce}>") == prompt.count(f"</data {nonce}>")
    assert all(sign == "\n" or sign == " " or unicodedata.category(sign)[0] not in "CZ" for sign in prompt)
    quoted = prompt.partition("asks for.\n\n")[2].partition("{|}")[0]
    assert "\n" not in quoted
    if quoted != "(not known)":
        assert len(json.loads(quoted)) <= max(MAX_VALUE + 1, 6 * MAX_VALUE)
    assert len(prompt) < 6 * MAX_RECORD + 12 * MAX_VALUE + 1000


@given(st.text(max_size=200), names, st.from_regex(r"[0-9a-f]{32}", fullmatch=True), st.none() | names)
def test_a_name_leads_back(title, sink, key, detect_id):
    """What a session's name begins with never changes why it was opened."""
    opened = Opened(sink, key, None if detect_id == "-" else detect_id)
    name = opened.name(title)
    assert opened == Opened.read(name)
    assert len(name) < MAX_NAME + 200


@given(
    st.text(max_size=40).filter(bool),
    st.dictionaries(st.text(max_size=5), values, max_size=3),
    st.text(max_size=30),
    st.text(max_size=60),
)
def test_a_message_is_a_record(kind, payload, timestamp, name):
    """Any message becomes one line of JSON with the message as it came; the same one gives the same id, however it is written."""
    try:
        compact = orjson.dumps({"type": kind, "timestamp": timestamp, "payload": payload})
    except orjson.JSONEncodeError:  # a lone surrogate, or an integer of more than 64 bits
        return
    session = SessionInfo("s", "running", name)
    records = []
    for raw in (compact, json.dumps(orjson.loads(compact), indent=1).encode()):
        message = decode(raw)
        assert message is not None
        line = make_record(message, session, "o")
        assert b"\n" not in line
        records.append(orjson.loads(line))
    assert orjson.loads(compact) == records[0]["event"]
    assert records[0]["routing"]["event_id"] == records[1]["routing"]["event_id"]
    assert re.fullmatch(r"AI_[A-Z0-9_]{0,64}", records[0]["routing"]["event_type"])
