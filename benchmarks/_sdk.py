"""The official SDK's Firehose doing the job `filter`, as its documentation shows it. Without decoding it cannot tell a torn record.

python _sdk.py PORT OUTPUT CERT KEY filter
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
from limacharlie.sdk.firehose import Firehose


def main() -> None:
    port, path, cert, key, _ = sys.argv[1:]
    firehose = Firehose(None, f"127.0.0.1:{port}", "event", ssl_cert=cert, ssl_key=key)
    with Path(path).open("wb", buffering=0) as output:
        while True:
            data = firehose.get(timeout=1)
            if data is not None and data["routing"]["event_type"] == "NEW_PROCESS":
                # The original line is gone by now.
                output.write(orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
