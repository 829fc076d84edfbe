"""Something that saves time where records are as expected, and is given up for a while where they are not."""

from __future__ import annotations

WINDOW = 4096
"""Records after which it is judged."""
PAUSE = 16
"""Windows in which it is not used after it failed too often: it costs more than it saves then."""


class Trial:
    """Counts failures, and says whether to go on trying."""

    __slots__ = ("_left", "_most", "_resting", "failed")

    def __init__(self, most: float) -> None:
        """``most`` is the share of records at which it may fail."""
        self._most = most * WINDOW
        self._left = WINDOW
        self._resting = False
        self.failed = 0
        """Records of this window at which it failed; counted by the user."""

    def goes(self, count: int) -> bool:
        """Whether to try it with the next ``count`` records."""
        self._left -= count
        if self._left < 0:
            self._resting = self.failed > self._most
            self.failed = 0
            self._left = WINDOW * PAUSE if self._resting else WINDOW
        return not self._resting
