"""What every Kafka client of ours shares: how it connects, how it learns why something failed, and how it words that.

aiokafka is imported on first use only: it takes a quarter of a second.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from pipeline.core.config import Field, Section
from pipeline.core.errors import (
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    PipelineError,
    UnavailableError,
)
from pipeline.core.types import Secret
from pipeline.kit.log import Logger

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


def _servers(value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("bootstrap servers are host:port, several with commas between them or as a list")
    names = tuple(str(name).strip() for name in names)
    for number, name in enumerate(names, 1):
        if not _SERVER.fullmatch(name):
            # Who writes a password here shall not find it in a log.
            raise ValueError(f"server {number} of {len(names)} is not host:port")
    return names


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class KafkaClientConfig(Section):
    """How to reach a Kafka cluster. The keys with dots are named and meant as in Kafka's own clients."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(_servers, json_schema_input_type=str | list[str])]
    """Brokers to start from: `host:port`, several with commas between them or as a list."""
    client_id: str = Field("lc-pipeline", alias="client.id")
    """The name by which the brokers know us, in their logs and quotas."""
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        Field("PLAINTEXT", alias="security.protocol")
    )
    """What the brokers' listener speaks: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(_upper)] = Field(
        "PLAIN", alias="sasl.mechanism"
    )
    """How we log in where the protocol begins with SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    sasl_username: str | None = Field(None, alias="sasl.username")
    """The user to log in as."""
    sasl_password: Secret | None = Field(None, alias="sasl.password")
    """Its password."""
    ssl_ca_location: Path | None = Field(None, alias="ssl.ca.location")
    """PEM file with the authorities to trust; default: the system's."""
    ssl_certificate_location: Path | None = Field(None, alias="ssl.certificate.location")
    """PEM file with our certificate, where the brokers ask for one."""
    ssl_key_location: Path | None = Field(None, alias="ssl.key.location")
    """PEM file with our private key."""
    ssl_key_password: Secret | None = Field(None, alias="ssl.key.password")
    """The password of our private key."""
    ssl_identification: Literal["https", "none"] = Field("https", alias="ssl.endpoint.identification.algorithm")
    """`https` compares the broker's name with its certificate, `none` does not."""

    @model_validator(mode="after")
    def _fits_protocol(self) -> Self:
        if self.security_protocol.startswith("SASL"):
            if not self.sasl_username or self.sasl_password is None:
                raise ValueError(f"security.protocol {self.security_protocol} needs sasl.username and sasl.password")
        elif self.sasl_username or self.sasl_password:
            raise ValueError("sasl.username and sasl.password need security.protocol SASL_SSL or SASL_PLAINTEXT")
        files = (self.ssl_ca_location, self.ssl_certificate_location, self.ssl_key_location)
        if any(files) and not self.security_protocol.endswith("SSL"):
            raise ValueError("the ssl.… keys need security.protocol SSL or SASL_SSL")
        if self.ssl_key_location and not self.ssl_certificate_location:
            raise ValueError("ssl.key.location needs ssl.certificate.location")
        return self

    @property
    def servers(self) -> str:
        """The bootstrap servers as Kafka's command lines take them."""
        return ",".join(self.bootstrap_servers)

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of an aiokafka client. Reads files. Raises `ConfigError`."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
        }
        if self.sasl_password is not None:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        file = self.ssl_ca_location
        try:
            context = ssl.create_default_context(cafile=file)
            context.check_hostname = self.ssl_identification == "https"
            if file := self.ssl_certificate_location:
                password = self.ssl_key_password.get_secret_value() if self.ssl_key_password else ""
                # always a password: without one OpenSSL would ask on the terminal
                context.load_cert_chain(file, self.ssl_key_location, password=password)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{file} cannot be used: {error}.", fix="Check the ssl.… keys of this component."
            ) from error
        return context


class Ear:
    """Hears what aiokafka logs about one client, because it logs the true reason of a failure and raises another one.

    What it hears goes to the component's own log at debug level instead of the root logger: aiokafka repeats itself ten
    times a second while a broker is away.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self.text = ""
        """The last complaint."""
        self.error: BaseException | None = None
        """The last error that came with one."""

    def forget(self) -> None:
        """Start over, before something is tried."""
        self.text, self.error = "", None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What runs inside, and every task that is started inside for as long as it lives, is heard by this ear."""
        for name in ("aiokafka", "aiokafka.conn", "aiokafka.cluster", "aiokafka.producer.sender"):
            logging.getLogger(name).addFilter(_to_ear)
        logging.getLogger("aiokafka").setLevel(logging.WARNING)
        token = _ear.set(self)
        try:
            yield
        finally:
            _ear.reset(token)

    def hear(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        given = record.args if isinstance(record.args, tuple) else ()
        self.error = next((item for item in given if isinstance(item, BaseException)), self.error)
        if self.error in given and not str(self.error):
            self.text += type(self.error).__name__  # a TimeoutError has no words of its own
        if record.exc_info:
            self._log.error("The Kafka client failed.", reason=self.text, exc_info=record.exc_info)
        else:
            self._log.debug("The Kafka client complains.", reason=self.text)


_ear: ContextVar[Ear | None] = ContextVar("kafka_ear", default=None)


def _to_ear(record: logging.LogRecord) -> bool:
    ear = _ear.get()
    if ear is None:
        return True
    ear.hear(record)
    return False


def explain(config: KafkaClientConfig, error: BaseException, ear: Ear) -> PipelineError:
    """Word a failure of aiokafka for a user: what is wrong and what to do."""
    from aiokafka import errors as kafka

    causes = [cause for cause in (error, error.__cause__, ear.error) if cause is not None]

    def due_to(*types: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, types)), None)

    where = f"Kafka at {config.servers}"
    if cause := due_to(
        kafka.SaslAuthenticationFailed, kafka.UnsupportedSaslMechanismError, kafka.IllegalSaslStateError
    ):
        return AuthenticationError(
            f"{where}: authentication refused for {config.sasl_username} by {config.sasl_mechanism} ({_said(cause)}).",
            fix="Check sasl.username, sasl.password and sasl.mechanism.",
        )
    acl = (
        f"kafka-acls.sh --bootstrap-server {config.servers} --add --allow-principal User:{config.sasl_username or '…'}"
    )
    if cause := due_to(kafka.TopicAuthorizationFailedError):
        topic = cause.args[0] if cause.args else "…"
        return PermissionDeniedError(
            f"{where}: no right to write to the topic {topic}.",
            fix=f"Grant it: {acl} --operation Describe --operation Write --topic {topic}",
        )
    if due_to(kafka.ClusterAuthorizationFailedError):
        return PermissionDeniedError(
            f"{where}: no right to write to any topic, or none to write idempotently.",
            fix=f"Grant it: {acl} --operation Describe --operation Write --topic … "
            "(brokers older than 2.8 also need --operation IdempotentWrite --cluster)",
        )
    if cause := due_to(ssl.SSLCertVerificationError):
        return UnavailableError(
            f"{where}: its certificate is not trusted ({_said(cause)}).",
            fix="Set ssl.ca.location to the authority that signed it, and use the name that it was made for.",
        )
    if due_to(OSError, kafka.KafkaConnectionError, TimeoutError):
        return UnavailableError(
            f"{where} cannot be reached ({ear.text or _said(error)}).",
            fix="Check that it runs, and that bootstrap_servers and security.protocol fit its listener.",
        )
    heard = f"; last heard: {ear.text}" if ear.text else ""
    return UnavailableError(f"{where} did not take the write ({_said(error)}{heard}).")


def unknown_topics(config: KafkaClientConfig, topics: Iterable[str]) -> NotFoundError:
    """Say that topics do not exist, and how to create them."""
    names = sorted(topics)
    commands = "; ".join(
        f"kafka-topics.sh --bootstrap-server {config.servers} --create --topic {name} --partitions 6 --replication-factor 3"
        for name in names[:3]
    )
    more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
    return NotFoundError(
        f"Kafka at {config.servers} has no topic {', '.join(names[:3])}{more}.", fix=f"Create it: {commands}"
    )


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
