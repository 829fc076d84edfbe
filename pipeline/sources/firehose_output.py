"""How the `firehose` source is registered as an Output of each organization: the section of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from pipeline.core.config import Field, Section, Tls
from pipeline.core.types import Duration, Listen, Secret

if TYPE_CHECKING:  # it imports an HTTP client, which a listener that nobody registers does without
    from pipeline.limacharlie.outputs import Output

OWN_FIELDS = frozenset({
    "cat", "dest_host", "inv_id", "is_delete_on_failure", "is_no_header", "is_strict_tls", "is_tls", "module", "name", "sid",
    "structured_data", "tag", "type", "for",
})  # fmt: skip
"""Fields of an Output that the section's own keys set."""


class OutputConfig(Section):
    """The Output that sends to this source. It is created, or brought up to date, on each start."""

    name: str = Field(min_length=1)
    """Its name in LimaCharlie."""
    address: str
    """Where LimaCharlie finds this listener: `host:port` as seen from the internet."""
    tls: bool = True
    """Whether LimaCharlie uses TLS; needed as well where a balancer ends it."""
    strict_tls: bool | None = None
    """Whether LimaCharlie checks the certificate. Default: unless the certificate is self-made."""
    recheck: Duration = Field(60.0, gt=0)
    """How long nobody may be connected until LimaCharlie is asked what is wrong with the Output. One with an error is enabled again by
    an update. Where that does not help, the waits grow up to ten times as long."""
    on_stop: Literal["keep", "remove"] = "keep"
    """`remove` deletes the Output when this source stops; another replica may still use it."""
    tag: str | None = None
    """Only sensors with this tag."""
    cat: str | None = None
    """Only detections of this category."""
    sid: str | None = None
    """Only this sensor."""
    inv_id: str | None = None
    """Only records of this investigation."""
    options: dict[str, str | bool | int | list[str]] = Field(default_factory=dict)
    """Further options of a LimaCharlie Output, such as `event_white_list`."""

    @field_validator("address")
    @classmethod
    def _full(cls, address: str) -> str:
        parsed = Listen.parse(address)
        if not parsed.host or not parsed.port:
            raise ValueError("an address to dial is host:port, with both")
        return str(parsed)

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, str | bool | int | list[str]]) -> dict[str, str | bool | int | list[str]]:
        if taken := sorted(OWN_FIELDS & options.keys()):
            raise ValueError(f"{', '.join(taken)}: set by the source's own keys")
        return options

    @property
    def host(self) -> str:
        """The host of `address`."""
        return Listen.parse(self.address).host

    def output(self, stream: str, *, tls: Tls | Literal["off"] | None, token: Secret | None) -> Output:
        """The Output that this section describes."""
        from pipeline.limacharlie.outputs import Output

        return Output.make(
            self.name,
            "syslog",
            stream,
            dest_host=self.address,
            is_tls=self.tls,
            is_strict_tls=self.tls and tls is not None if self.strict_tls is None else self.strict_tls,
            is_no_header=token is None,
            structured_data=token.get_secret_value() if token is not None else None,
            tag=self.tag,
            cat=self.cat,
            sid=self.sid,
            inv_id=self.inv_id,
            **self.options,
        )
