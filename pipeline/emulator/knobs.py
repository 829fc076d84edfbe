"""The control panel: each knob is a ``POST /_emulator/<name>`` with a JSON object, and a step of a scenario.

``GET /_emulator/`` lists them with their arguments.
"""

from __future__ import annotations

from pydantic import ValidationError

from pipeline.emulator import knobs_api as api
from pipeline.emulator import knobs_requests as requests
from pipeline.emulator import knobs_streams as streams
from pipeline.emulator.ai_knobs import AI_KNOBS
from pipeline.emulator.panel import Knob, Panel, Result


class Clear(Knob):
    """Forget the armed faults, shapes and request counts."""

    def turn(self, panel: Panel) -> Result:
        panel.faults.clear()
        panel.ai.clear()
        panel.hub.shapes.clear()
        panel.requests.clear()
        return {}


KNOBS: dict[str, type[Knob]] = {
    "respond": requests.Respond,
    "latency": requests.Latency,
    "headers": requests.Headers,
    "expire_tokens": requests.ExpireTokens,
    "token_lifetime": requests.TokenLifetime,
    "key": requests.NewKey,
    "permissions": requests.Permissions,
    "revoke": requests.Revoke,
    "connect_delay": streams.ConnectDelay,
    "stream_error": streams.StreamError,
    "instant_close": streams.InstantClose,
    "stall": streams.Stall,
    "drop": streams.Drop,
    "say": streams.Say,
    "close": streams.Close,
    "shape": streams.SetShape,
    "output": streams.SetOutput,
    "dialer": streams.SetDialer,
    "trust": streams.Trust,
    "buffer": streams.Buffer,
    "emit": streams.Emit,
    "hostile": streams.Hostile,
    "detect_shape": streams.SetDetectShape,
    **AI_KNOBS,
    "presence": api.Presence,
    "tasks": api.Tasks,
    "reliable_tasking": api.ReliableTasking,
    "searches": api.Searches,
    "artifacts": api.Artifacts,
    "hive_limit": api.HiveLimit,
    "clear": Clear,
}


def parse(name: str, arguments: object) -> Knob:
    """The knob with checked arguments; raises `LookupError` for its name and `ValueError` for them."""
    if name not in KNOBS:
        raise LookupError(f"unknown knob {name}; there are: {', '.join(KNOBS)}")
    try:
        return KNOBS[name].model_validate(arguments)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
        raise ValueError(f"{name}: {'; '.join(problems)}") from None


def describe() -> Result:
    """All knobs with what they do and their arguments, as JSON Schema properties."""
    return {
        name: {
            "does": " ".join((knob.__doc__ or "").split()),
            "arguments": knob.model_json_schema().get("properties", {}),
        }
        for name, knob in KNOBS.items()
    }
