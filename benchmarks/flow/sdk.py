"""The official SDK's Firehose or Spout doing the job `json`, as its documentation shows it.

    python sdk.py tls|spout PORT OUTPUT CERT KEY json

Without decoding it cannot tell a torn record.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import limacharlie.sdk.spout as spout_module
import orjson
from limacharlie.sdk.firehose import Firehose
from limacharlie.sdk.spout import Spout

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


def main() -> None:
    source, port, path, cert, key, _ = sys.argv[1:]
    if source == "tls":
        stream = Firehose(None, f"127.0.0.1:{port}", "event", ssl_cert=cert, ssl_key=key)
    else:
        spout_module._STREAM_URL = f"https://127.0.0.1:{port}/stream-tmp"
        client = SimpleNamespace(_jwt="bench", _api_key=None, _uid=None)
        # The default of 1,024 loses most of a fast stream; what a user would set who noticed.
        stream = Spout(SimpleNamespace(oid=OID, client=client), "event", max_buffer=100_000)
    with Path(path).open("wb", buffering=0) as output:
        while True:
            data = stream.get(timeout=1)
            if data is not None and data["routing"]["event_type"] == "NEW_PROCESS":
                # The original line is gone by now.
                output.write(orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
