"""Finding the credentials: in the configuration, or where LimaCharlie's own tools keep theirs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.core.errors import AuthenticationError, ConfigError
from pipeline.core.types import Secret
from pipeline.limacharlie.config import LimaCharlieConfig, OrgConfig

STREAM_PERMISSIONS = "output.list,output.set,output.del"
"""What a key needs: each stream is a temporary Output on LimaCharlie's side."""
_ENVIRONMENT = "the environment"
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API key, and what it is for. The key is in no text that this object gives."""

    api_key: Secret
    oid: str | None = None
    uid: str | None = None
    """Set when the key is a user's."""
    origin: str = field(default="the configuration", compare=False)
    """Where they were found, in words."""


def discover(config: LimaCharlieConfig, environ: Mapping[str, str], *, home: Path | None = None) -> Credentials:
    """Find the credentials: the section itself, else the environment, else a named environment, else the default one.

    Variables: ``LC_OID``, ``LC_API_KEY``, ``LC_UID``, ``LC_CURRENT_ENV``, ``LC_CREDS_FILE``, ``LC_CONFIG_DIR``,
    ``LC_LEGACY_CONFIG``, ``LC_EPHEMERAL_CREDS`` (then no file is read). ``home`` is the user's folder.

    Raises `AuthenticationError` when there is no API key (only an OAuth login, or nothing), `ConfigError` when the credentials
    file cannot be read.
    """
    if config.api_key is not None:
        # As in LimaCharlie's tools: an explicit key does not mix with a stored user id, which would make it invalid.
        oid = config.oid or _variables(environ, "oid").oid
        return Credentials(config.api_key, oid, config.uid)
    if config.environment is None and environ.get("LC_API_KEY"):
        origin, login = _ENVIRONMENT, False
        found = _variables(environ, "oid", "api_key", "uid")
    else:
        path = None if environ.get("LC_EPHEMERAL_CREDS") else credentials_file(environ, home or Path.home())
        found, login, origin = _stored(config.environment or environ.get("LC_CURRENT_ENV") or None, path)
        if config.environment is None:
            found = found.model_copy(update=_variables(environ, "oid", "uid").model_dump(exclude_none=True))
    if found.api_key is None:
        raise _missing(origin, login=login)
    return Credentials(found.api_key, config.oid or found.oid, config.uid or found.uid, origin)


def credentials_file(environ: Mapping[str, str], home: Path) -> Path:
    """The credentials file of LimaCharlie's tools, whether it exists or not."""
    legacy = home / ".limacharlie"
    if given := environ.get("LC_CREDS_FILE"):
        return Path(given)
    if environ.get("LC_LEGACY_CONFIG") == "1":
        return legacy
    if folder := environ.get("LC_CONFIG_DIR"):
        return Path(folder) / "config.yaml"
    appdata = environ.get("APPDATA") if sys.platform == "win32" else None
    modern = (Path(appdata) / "limacharlie" if appdata else home / ".limacharlie.d") / "config.yaml"
    return legacy if legacy.is_file() and not modern.exists() else modern


def _stored(name: str | None, path: Path | None) -> tuple[OrgConfig, bool, str]:
    """Read an environment of the credentials file: what it holds, whether it has an OAuth login, where it stands."""
    if path is None:
        return OrgConfig(), False, _ENVIRONMENT
    content = _read(path)
    name = name or content.get("current_env") or "default"
    origin = f"{path} (environment {name})"
    if name == "default":
        values: Any = content
    else:
        environments = content.get("env")
        values = environments.get(name) if isinstance(environments, dict) else None
        if values is None:
            raise ConfigError(f"There is no environment {name!r}.", where=str(path), fix="Name one that exists.")
    if not isinstance(values, dict):
        raise ConfigError("An environment is a table of oid, api_key and uid.", where=origin)
    return _parse(values, origin), bool(values.get("oauth")), origin


def _read(path: Path) -> dict[str, Any]:
    problem = ""
    content: Any = None
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            problem = "It is too large for a credentials file."
        else:
            content, problem = _load(data)
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = f"It cannot be read: {error.strerror or type(error).__name__}."
    if problem:
        raise ConfigError(problem, where=str(path), fix="Repair it, or set LC_OID and LC_API_KEY.")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("It is not a table of names and values.", where=str(path))
    return content


def _load(data: bytes) -> tuple[Any, str]:
    """The content of a YAML file, or what is wrong with it."""
    # imported here: who has no such file need not wait for it
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).load(data), ""
    except (YAMLError, ValueError) as error:
        # The parser's own text quotes the file, and with it a key.
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        return None, f"It is not valid YAML{f' (line {mark.line + 1})' if mark else ''}."


def _variables(environ: Mapping[str, str], *keys: str) -> OrgConfig:
    return _parse({key: environ.get(f"LC_{key.upper()}") for key in keys}, _ENVIRONMENT)


def _parse(values: Mapping[str, Any], origin: str) -> OrgConfig:
    """Raises `ConfigError` with a sentence for each value that is wrong."""
    problem = ""
    try:
        return OrgConfig.model_validate({key: values.get(key) for key in ("oid", "api_key", "uid")})
    except ValidationError as error:
        # Only the place and the rule: pydantic's text shows the value.
        problem = " ".join(_sentence(at, origin) for at in error.errors(include_input=False))
    raise ConfigError(problem, where=origin, fix="Correct it, or remove it.")


def _sentence(error: ErrorDetails, origin: str) -> str:
    key = str(error["loc"][0])
    name = f"LC_{key.upper()}" if origin == _ENVIRONMENT else f"`{key}`"
    rule = error["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    return f"The value of {name} is wrong: {rule}."


def _missing(origin: str, *, login: bool) -> AuthenticationError:
    if login:
        return AuthenticationError(
            "There is a browser (OAuth) login but no API key, and only a key can open streams for months.",
            where=origin,
            fix=(
                "Create a key with the output.* permissions (limacharlie api-key create --name lc-pipeline "
                f"--permissions {STREAM_PERMISSIONS}) and set LC_OID and LC_API_KEY."
            ),
        )
    return AuthenticationError(
        "There is no LimaCharlie API key.",
        where=origin,
        fix="Set LC_OID and LC_API_KEY, or limacharlie.oid and limacharlie.api_key in the configuration.",
    )
