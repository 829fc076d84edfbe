import sys

from benchmarks import report
from benchmarks.soak import options, run

report.write("soak", {"soak": run(options(sys.argv[1:]))})
