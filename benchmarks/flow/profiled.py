"""Runs a module under cProfile with the CPU time of its thread as the clock: ``python profiled.py STATS MODULE ARGUMENT…``."""

import cProfile
import runpy
import sys
import time

_, stats, module, *sys.argv[1:] = sys.argv
sys.argv[0] = module
profile = cProfile.Profile(time.thread_time)
try:
    profile.runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
finally:
    profile.dump_stats(stats)
