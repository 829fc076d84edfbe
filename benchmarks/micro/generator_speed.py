"""How many records a second of CPU time the emulator's generators make: ``python benchmarks/micro/generator_speed.py [RECORDS]``."""

import sys
import time

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import STREAMS, Generator


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    fleet = Fleet("8cbe27f4-bfa1-4afb-ba19-138cd51389cd", seed=7)
    print(f"{'stream':<12}{'records/s':>12}{'MB/s':>8}{'mean bytes':>12}{'largest':>10}")
    for stream in STREAMS:
        generator = Generator(fleet, stream, 7, 1_700_000_000_000, 1000.0)
        size = largest = 0
        seconds = 0.0
        for _ in range(count // 1000):
            start = time.process_time()
            records = generator.take(1000)
            seconds += time.process_time() - start
            sizes = [len(record.raw) for record in records]
            size += sum(sizes)
            largest = max(largest, *sizes)
        made = count // 1000 * 1000
        print(f"{stream:<12}{made / seconds:>12,.0f}{size / seconds / 1e6:>8.0f}{size / made:>12,.0f}{largest:>10,}")


if __name__ == "__main__":
    main()
