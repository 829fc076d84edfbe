"""AI sessions: all of their services."""

from __future__ import annotations

from pipeline.emulator.access import Access
from pipeline.emulator.ai_access import Callers
from pipeline.emulator.ai_credentials import CredentialService
from pipeline.emulator.ai_files import FileService, Storage
from pipeline.emulator.ai_org import OrgSessionService
from pipeline.emulator.ai_profiles import ProfileService
from pipeline.emulator.ai_sessions import SessionService
from pipeline.emulator.ai_socket import SocketService
from pipeline.emulator.ai_state import Ai
from pipeline.emulator.jwt import Tokens

AiService = SessionService | ProfileService | CredentialService | OrgSessionService | FileService | SocketService


def ai_services(ai: Ai, access: Access, tokens: Tokens) -> list[AiService]:
    callers, storage = Callers(ai, access, tokens), Storage(ai)
    return [
        SessionService(ai, callers),
        ProfileService(callers),
        CredentialService(callers),
        OrgSessionService(ai, callers),
        FileService(ai, callers, storage),
        SocketService(ai, callers, storage),
    ]
