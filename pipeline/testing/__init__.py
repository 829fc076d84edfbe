"""The kit for authors of sources, filters and sinks: runs the contract of `pipeline` against one component.

```python
async def test_heartbeat_keeps_the_contract():
    await check_source(lambda context: Heartbeat(HeartbeatConfig(type="heartbeat", interval=0.01), context))
```

A check raises AssertionError with a sentence that says which promise is broken. The checks look at one component alone; what the
engine does with it (batching, retries, dead letters) is not theirs.
"""

from pipeline.testing.filters import check_filter
from pipeline.testing.records import RECORDS, make_events, make_items
from pipeline.testing.sinks import check_sink
from pipeline.testing.sources import check_source
from pipeline.testing.surroundings import FakeClock, RecordingOutlet, RecordingReport, context

__all__ = [
    "RECORDS",
    "FakeClock",
    "RecordingOutlet",
    "RecordingReport",
    "check_filter",
    "check_sink",
    "check_source",
    "context",
    "make_events",
    "make_items",
]
