"""Which error an answer becomes."""

import pytest

from pipeline.limacharlie.failures import TooLargeError, failure


@pytest.mark.parametrize(
    ("narrow", "fix"),
    [(True, "set oid, which narrows it to one"), (False, "send less at once, or use a key with fewer permissions")],
)
def test_too_large_is_explained(narrow: bool, fix: str) -> None:
    """413 says what was too large and what helps, for a user's key and for an organization's."""
    error = failure(413, {}, "too large", where="GET /x", now=0.0, narrow=narrow)
    assert isinstance(error, TooLargeError)
    assert fix in error.fix
