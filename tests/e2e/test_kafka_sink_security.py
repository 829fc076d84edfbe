"""The sink `kafka` on a listener with TLS and logins."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kafka_broker import PLAIN_PASSWORD, PLAIN_USER, SCRAM_PASSWORD, SCRAM_USER
from kafka_sinks import MakeSink, part, records

from pipeline.core.errors import AuthenticationError, ConfigError, Partial, PermissionDeniedError, RetryLater
from pipeline.core.items import Items


@pytest.fixture
def secure(kafka_broker, make_kafka_sink: MakeSink) -> MakeSink:
    """Builds sinks that log in as the SCRAM user on the SASL_SSL listener of our own broker."""

    def make(**config: object):
        return make_kafka_sink(
            **{
                "bootstrap_servers": kafka_broker.secure_bootstrap,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": SCRAM_USER,
                "sasl.password": SCRAM_PASSWORD,
                "ssl.ca.location": kafka_broker.ca,
            }
            | config
        )

    return make


@pytest.mark.parametrize(
    ("mechanism", "user", "password"),
    [
        ("SCRAM-SHA-512", SCRAM_USER, SCRAM_PASSWORD),
        ("SCRAM-SHA-256", SCRAM_USER, SCRAM_PASSWORD),
        ("PLAIN", PLAIN_USER, PLAIN_PASSWORD),
    ],
)
async def test_logs_in_and_writes(kafka_broker, kafka_topics, secure, mechanism: str, user: str, password: str) -> None:
    """Every mechanism logs in over TLS, and a user with Write and Describe on the topic can write to it."""
    topic = await kafka_topics.make()
    await asyncio.to_thread(kafka_broker.acl, "--add", user, ["Write", "Describe"], "--topic", topic)
    sink = secure(**{"topic": topic, "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password})
    await sink.check()
    await sink.write(Items([part(records(3))]))
    assert records(3) == [record.value for record in await kafka_topics.read(topic)]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_wrong_password_is_told_as_such(secure, mechanism: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong password is "authentication refused" with the keys to check, and shows nowhere itself."""
    sink = secure(**{"topic": "lc.event", "sasl.mechanism": mechanism, "sasl.password": "hunter2-wrong"})
    with pytest.raises(RetryLater, match="authentication refused") as caught:
        await sink.open({})
    with pytest.raises(AuthenticationError) as checked:
        await sink.check()
    told = f"{caught.value} {checked.value!r} {sink.config!r} {sink.config.model_dump_json()} {''.join(capsys.readouterr())}"
    assert "sasl.password" in caught.value.fix
    assert "hunter2" not in told


async def test_missing_right_is_told_with_the_command(kafka_broker, kafka_topics, secure) -> None:
    """A user without the right to write waits, and the error holds the command that grants it."""
    topic = await kafka_topics.make()
    user = kafka_broker.secure_bootstrap
    sink = secure(topic=topic)
    with pytest.raises(RetryLater, match="no right") as caught:
        await sink.write(Items([part(records(1))]))
    assert f"kafka-acls.sh --bootstrap-server {user} --add --allow-principal User:{SCRAM_USER}" in caught.value.fix
    other = await kafka_topics.make()
    await asyncio.to_thread(kafka_broker.acl, "--add", SCRAM_USER, ["Write", "Describe"], "--topic", other)
    with pytest.raises(RetryLater, match=f"no right to write to the topic {topic}"):
        await sink.write(Items([part(records(1))]))
    with pytest.raises(PermissionDeniedError):
        await sink.check()
    await asyncio.to_thread(kafka_broker.acl, "--add", SCRAM_USER, ["Describe"], "--topic", topic)
    with pytest.raises(RetryLater, match=f"no right to write to the topic {topic}"):
        await sink.write(Items([part(records(1))]))
    await asyncio.to_thread(kafka_broker.acl, "--add", SCRAM_USER, ["Write"], "--topic", topic)
    await sink.write(Items([part(records(1))]))
    assert records(1) == [record.value for record in await kafka_topics.read(topic)]


async def test_partition_without_right_is_named_and_the_others_are_stored(kafka_broker, kafka_topics, secure) -> None:
    """When some topics of a write refuse it, `Partial` names exactly their items, and the write after it goes on."""
    prefix = kafka_topics.name("lc")
    granted, denied = [await kafka_topics.make(f"{prefix}.{stream}", partitions=3) for stream in ("event", "detect")]
    await asyncio.to_thread(kafka_broker.acl, "--add", SCRAM_USER, ["Write", "Describe"], "--topic", granted)
    await asyncio.to_thread(kafka_broker.acl, "--add", SCRAM_USER, ["Describe"], "--topic", denied)
    sink = secure(topic=f"{prefix}.{{stream}}", key="k")
    parts = [
        part(records(20, start), stream, values=[{"k": str(n)} for n in range(20)])
        for start, stream in ((0, "event"), (20, "detect"), (40, "event"))
    ]
    with pytest.raises(Partial) as caught:
        await sink.write(Items(parts))
    assert set(range(20, 40)) == set(caught.value.failures)
    assert {RetryLater} == {type(verdict) for verdict in caught.value.failures.values()}
    await sink.write(Items([part(records(5, 60))]))
    stored = {record.value for record in await kafka_topics.read(granted)}
    assert set(records(20) + records(20, 40) + records(5, 60)) == stored
    assert not await kafka_topics.read(denied)


async def test_untrusted_certificate_is_told_as_such(secure, tmp_path: Path) -> None:
    """A broker whose certificate we do not trust is told as that, with the key that names the authority."""
    import trustme

    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    with pytest.raises(RetryLater, match="certificate is not trusted") as caught:
        await secure(**{"topic": "lc.event", "ssl.ca.location": stranger}).open({})
    assert "ssl.ca.location" in caught.value.fix


async def test_missing_certificate_file_is_named(secure, tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    sink = secure(**{"topic": "lc.event", "ssl.ca.location": tmp_path / "nowhere.pem"})
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        await sink.check()


async def test_plain_client_on_a_tls_listener_ends_in_time(kafka_broker, make_kafka_sink: MakeSink) -> None:
    """The wrong security.protocol is an error that names this key."""
    sink = make_kafka_sink(bootstrap_servers=kafka_broker.secure_bootstrap, topic="lc.event", timeout="3s")
    with pytest.raises(RetryLater) as caught:
        await sink.open({})
    assert "security.protocol" in caught.value.fix
