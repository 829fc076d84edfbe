import sys

from benchmarks import report
from benchmarks.flow import options, run

result = report.write("flow", {"flow": run(options(sys.argv[1:]))})
# What we say of ourselves must not fail quietly.
sys.exit(any(system["failure"] for group in result["flow"]["groups"] for system in group["systems"]))
