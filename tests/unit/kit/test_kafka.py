"""How a Kafka client is configured."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.kit.kafka import KafkaClientConfig


@pytest.mark.parametrize("servers", ["a:1,user:PASSWORD@host", ["a:1", "user:PASSWORD@host"]])
def test_a_bad_server_is_not_shown(servers: object) -> None:
    """Who writes a password into an address reads which one is wrong, and not the password."""
    with pytest.raises(ValidationError) as caught:
        KafkaClientConfig.model_validate({"bootstrap_servers": servers})
    (error,) = caught.value.errors()
    assert error["msg"] == "Value error, server 2 of 2 is not host:port"
