"""AI sessions of one account, noun by noun."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from pipeline.limacharlie.ai.account import Credentials, Registration
from pipeline.limacharlie.ai.agents import Agents
from pipeline.limacharlie.ai.live import LiveSession
from pipeline.limacharlie.ai.profiles import Profiles
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.ai.sessions import OrgSessions, Sessions
from pipeline.limacharlie.ai.socket import SocketOptions
from pipeline.limacharlie.ai.transfer import Files
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.transport import Transport


class Ai:
    """What can be asked of AI sessions."""

    def __init__(self, transport: Transport, organization: Organization, oid: str) -> None:
        self._service = AiService(transport, organization, oid)

    @cached_property
    def registration(self) -> Registration:
        return Registration(self._service)

    @cached_property
    def credentials(self) -> Credentials:
        return Credentials(self._service)

    @cached_property
    def profiles(self) -> Profiles:
        return Profiles(self._service)

    @cached_property
    def sessions(self) -> Sessions:
        """The user's own."""
        return Sessions(self._service)

    @cached_property
    def org_sessions(self) -> OrgSessions:
        return OrgSessions(self._service)

    @cached_property
    def agents(self) -> Agents:
        """Definitions that sessions of the organization are started from."""
        return Agents(self._service)

    @cached_property
    def files(self) -> Files:
        return Files(self._service)

    def attach(
        self,
        session_id: str,
        options: SocketOptions = SocketOptions(),  # noqa: B008 - frozen
        *,
        seen: Iterable[str] = (),
        history: bool = False,
        give_up: float | None = None,
    ) -> LiveSession:
        """Prepare to follow a session and speak in it; see `LiveSession`.

        ``seen`` are ids of messages not to give again, ``history`` begins with all that was said, ``give_up`` is after how many
        seconds without a connection the error is raised (default: never).
        """
        return LiveSession(self._service, session_id, options, seen=seen, history=history, give_up=give_up)
