"""``python -m pipeline.cli`` is `lc-pipeline`."""

from pipeline.cli import main

main()
