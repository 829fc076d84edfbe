import sys

from benchmarks import report
from benchmarks.micro import options, run

report.write("micro", {"micro": run(options(sys.argv[1:]))})
