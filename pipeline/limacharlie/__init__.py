"""What only LimaCharlie does: credentials, tokens, REST API, stream protocol, shapes of records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.config import LimaCharlieConfig

__all__ = ["LimaCharlie", "LimaCharlieConfig"]


def __getattr__(name: str) -> Any:
    """Import on first use: whoever needs only the shapes of records does not load an HTTP client."""
    if name == "LimaCharlie":
        from pipeline.limacharlie.client import LimaCharlie

        return LimaCharlie
    if name == "LimaCharlieConfig":
        from pipeline.limacharlie.config import LimaCharlieConfig

        return LimaCharlieConfig
    raise AttributeError(name)
