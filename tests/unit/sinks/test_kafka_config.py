"""The config of the sink `kafka`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.sinks.kafka import KafkaSinkConfig


def config(**keys: object) -> KafkaSinkConfig:
    return KafkaSinkConfig.model_validate({"bootstrap_servers": "kafka:9092", "topic": "lc.{stream}"} | keys)


SASL = {
    "security.protocol": "sasl_ssl",
    "sasl.mechanism": "scram-sha-512",
    "sasl.username": "u",
    "sasl.password": "hunter2",
}


def test_takes_kafkas_own_key_names() -> None:
    """Security is configured by Kafka's names with dots, in any case of their values."""
    found = config(**SASL, **{"ssl.endpoint.identification.algorithm": "none", "client.id": "soc"})
    options = found.client_options()
    assert not options.pop("ssl_context").check_hostname
    assert options == {
        "bootstrap_servers": ["kafka:9092"],
        "client_id": "soc",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "hunter2",
    }


def test_password_never_shows() -> None:
    """Neither repr nor dump nor schema of a config holds a password."""
    found = config(**SASL)
    assert "hunter2" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"


@pytest.mark.parametrize(
    ("servers", "parsed"),
    [
        ("a:9092, b:9093", ("a:9092", "b:9093")),
        (["a:1", "[::1]:2"], ("a:1", "[::1]:2")),
        ("kafka", ("kafka",)),
    ],
)
def test_bootstrap_servers_are_text_or_list(servers: object, parsed: tuple[str, ...]) -> None:
    """Several servers are given with commas between them or as a list."""
    assert parsed == config(bootstrap_servers=servers).bootstrap_servers


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"bootstrap_servers": ""}, "is not host:port"),
        ({"bootstrap_servers": []}, "host:port"),
        ({"bootstrap_servers": "http://kafka:9092"}, "is not host:port"),
        ({"bootstrap_servers": 9092}, "host:port"),
        ({"topic": "lc/{stream}"}, "A-Z a-z 0-9"),
        ({"topic": ".."}, "is not . or .."),
        ({"topic": "t" * 250}, "at most 249"),
        ({"topic": "{stream}"}, "literal prefix"),
        ({"key": "routing/*"}, "without wildcards"),
        ({"headers": ["org", "sid"]}, "'org', 'source', 'origin' or 'received_at'"),
        ({"compression": "brotli"}, "'zstd'"),
        ({"security.protocol": "SASL_SSL"}, "needs sasl.username and sasl.password"),
        ({"sasl.username": "u", "sasl.password": "p"}, "need security.protocol"),
        ({"ssl.ca.location": "/ca.pem"}, "need security.protocol"),
        ({"security.protocol": "SSL", "ssl.key.location": "/key.pem"}, "needs ssl.certificate.location"),
        ({"sasl.mechanism": "GSSAPI"}, "'SCRAM-SHA-512'"),
        ({"acks": "1"}, "Extra inputs"),
    ],
)
def test_mistakes_are_told(keys: dict[str, object], told: str) -> None:
    """What cannot work is refused with a sentence that says what would."""
    with pytest.raises(ValidationError) as caught:
        config(**keys)
    assert told in str(caught.value)


def test_asks_for_the_paths_of_key_and_topic() -> None:
    """The sink asks for the values of exactly the record paths in its key and topic."""
    from kafka_sinks import build

    sink = build(bootstrap_servers="k:1", topic="lc.{stream}.{routing/hostname}", key="routing/sid")
    assert {"routing/hostname", "routing/sid"} == set(sink.paths)
    assert not set(build(bootstrap_servers="k:1", topic="lc.{stream}").paths)
