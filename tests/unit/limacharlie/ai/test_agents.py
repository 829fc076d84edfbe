"""Sessions from an agent's definition."""

import pytest

from pipeline.core.errors import NotFoundError
from pipeline.limacharlie.hive import HiveRecord


@pytest.fixture
def start(lc, monkeypatch):
    """Starts an agent by its definition; gives the body of the request."""
    asked = []
    request = lc.transport.request

    async def noting(method, path, **arguments):
        if path == "/v1/api/sessions":
            asked.append(arguments["json"])
        return await request(method, path, **arguments)

    monkeypatch.setattr(lc.transport, "request", noting)

    async def run(definition, agent="triage", **options):
        await lc.hive("ai_agent").put(HiveRecord("triage", definition, enabled=True))
        await lc.hive("secret").put(HiveRecord("one", {"secret": "first-secret"}, enabled=True))
        session = await lc.ai.agents.start(agent, **options)
        assert (await lc.ai.org_sessions.get(session.id)).id == session.id
        return asked.pop()

    return run


async def test_definition(start):
    """What the definition says is sent, with its secrets resolved."""
    body = await start(
        {
            "prompt": "Look.",
            "name": "triage",
            "anthropic_secret": "hive://secret/one",
            "lc_api_key_secret": "hive://secret/one",
            "allowed_tools": ["Bash"],
            "max_turns": 3,
            "environment": {"A": "hive://secret/one", "B": "plain"},
            "mcp_servers": {"vt": {"type": "http", "url": "https://x", "headers": {"k": "hive://secret/one"}}},
            "unknown": 1,
        },
        agent="hive://ai_agent/triage",
    )
    assert body == {
        "prompt": "Look.",
        "trigger_source": "cli",
        "name": "triage",
        "anthropic_key": "first-secret",
        "lc_api_key": "first-secret",
        "profile": {
            "allowed_tools": ["Bash"],
            "max_turns": 3,
            "environment": {"A": "first-secret", "B": "plain"},
            "mcp_servers": {"vt": {"type": "http", "url": "https://x", "headers": {"k": "first-secret"}}},
        },
    }


async def test_replacing(start):
    """What is given replaces what the definition says; the environment is merged, data is added to the prompt."""
    body = await start(
        {"prompt": "Look.", "anthropic_secret": "literal", "max_turns": 3, "environment": {"A": "1", "B": "1"}},
        prompt="Mine.",
        data={"cat": "x"},
        name="case",
        idempotent_key="k",
        max_turns=1,
        environment={"B": "2"},
    )
    assert body["prompt"].startswith("Mine.\n\nEvent data:\n```json\n{")
    assert ("case", "k") == (body["name"], body["idempotent_key"])
    assert {"max_turns": 1, "environment": {"A": "1", "B": "2"}} == body["profile"]
    assert "lc_api_key" not in body


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (
            {"provider": "openai", "credentials": {"api_key": "k"}, "anthropic_secret": "x"},
            ("openai", {"api_key": "k"}),
        ),
        (
            {"bedrock": {"region": "us", "access_key_id_secret": "hive://secret/one"}},
            ("anthropic", {"access_key_id": "first-secret", "auth": "bedrock", "region": "us"}),
        ),
        (
            {"vertex": {"project_id": "p", "region": "r", "service_account_json_secret": "hive://secret/one"}},
            ("anthropic", {"auth": "vertex", "project_id": "p", "region": "r", "service_account_json": "first-secret"}),
        ),
    ],
)
async def test_who_pays(start, definition, expected):
    """Credentials come before the key, and that before the older blocks."""
    body = await start({"prompt": "x", **definition})
    assert expected == (body["provider"], body["credentials"])
    assert "anthropic_key" not in body


async def test_missing(lc, start):
    """A secret or a definition that is not there is an error, not an empty key."""
    with pytest.raises(NotFoundError):
        await start({"prompt": "x", "anthropic_secret": "hive://secret/none"})
    with pytest.raises(NotFoundError):
        await start({"prompt": "x", "anthropic_secret": "x"}, agent="other")
