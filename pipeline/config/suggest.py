"""Guesses at what a mistyped word was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean X? "`` for the nearest known word, or "" when none is near."""
    near = get_close_matches(word[:100].lower(), list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}? " if near else ""
