"""The oracle: does the pipeline keep its word, whatever is done to it?

    python tests/oracle/oracle.py [--rounds 100] [--seed N] [--first 0] [--slots 4] [--keep]

Pipelines with disk spools (real processes) take records from one emulator over TLS, by firehose and spout, and hand them to files,
to a real Kafka and to a sink with moods. In each round one of them is killed, stopped, frozen, cut off, its disk filled, its clock
moved, its sinks taken away, in an order that the seed and the round's number give. Then all is well again, and it must hold:

* what the spool accepted is delivered: to the files exactly once and in order, to the others at least once or to the dead letter;
* nothing is altered, nothing is invented, no number is given twice; duplicates only where a crash or Kafka's outage explains them;
* fresh records flow, and conservation holds at every scrape;
* every spool that a kill leaves passes what `lc-pipeline spool verify` checks.

Of four pipelines one is no more than that. Of the others

* one has a lane with `on_full: drop_oldest`: what it never delivers is what it counted as discarded and noted in the gap ledger, to
  the record, and while it is stuck the other lanes go on;
* one has a route with `dedupe`, and records that come twice: of each the first comes out of it, and no other;
* one has `backfill`, and records that come twice as well: once its gaps are filled, of itself or by request, all that was generated
  since the first receipt is in the files, each once.

What was accepted is known by sequence numbers, which have no gaps: from the spool that a dead process leaves, from what the process
counted just before its end, and from the archive, where record n is line n. The emulator's ledger, written before the hand-over,
says what was sent: the records of each connection must be a beginning of it without a gap, and all of it where the end was clean.

A failure prints the round with all that happened in it, and keeps the folder. Rounds are races with real processes: the seed gives
the same actions again, not the same interleaving. `--first` goes on with another round.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from accounts import OracleError
from moody import lay_out
from shapes import SHAPES
from slot import Slot
from world import Cloud, Lake

EPOCH = 100
"""Rounds after which everything but Kafka begins anew, so that nothing grows for ever."""
RATE = 60.0
"""Records per second, stream and organization."""
OUTAGE_EVERY = 25
"""Of so many rounds, one takes Kafka down."""
ENOUGH = 80
"""Rounds in which everything has to have happened that can be done to a pipeline."""
EFFECTS = ("all/moody: letters", "loose/scrap: given up", "once/unique: copies dropped", "gaps: records fetched")
"""What has to have come of it."""


class Oracle:
    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.done: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.possible: set[str] = set()
        self.finished = 0
        self.failed = ""

    async def run(self) -> None:
        options = self.options
        site = self.folder / "site"
        lay_out(site)
        lake = Lake(self.folder / "kafka")
        try:
            await lake.start()
            for first in range(options.first, options.first + options.rounds, EPOCH):
                numbers = iter(range(first, min(first + EPOCH, options.first + options.rounds)))
                await self._epoch(self.folder / f"rounds-{first}", lake, site, numbers)
                if self.failed:
                    return
            if self.finished >= ENOUGH and options.slots >= len(SHAPES):
                never = [what for what in self.possible if not self.done[what]]
                never += [what for what in EFFECTS if not self.totals[what]]
                self.failed = f"It never came to {', '.join(never)}." if never else ""
        finally:
            await lake.stop()

    async def _epoch(self, folder: Path, lake: Lake, site: Path, numbers: Iterator[int]) -> None:
        cloud = Cloud(folder / "cloud", self.options.slots, RATE, self.options.seed)
        slots: list[Slot] = []
        try:
            await cloud.start()
            for number in range(self.options.slots):
                slots.append(Slot(number, folder / f"slot-{number}", cloud, lake, site))
                await lake.make(slots[-1].topic)
            await asyncio.gather(*(self._work(slot, numbers) for slot in slots))
        finally:
            for slot in slots:
                await slot.close()
            await cloud.stop()
        for slot in slots:
            self.done.update(slot.done)
            self.possible.update(slot.possible)
            self.totals.update(slot.accounts.totals())
        if not self.failed and not self.options.keep:
            shutil.rmtree(folder)

    async def _work(self, slot: Slot, numbers: Iterator[int]) -> None:
        for number in numbers:
            rng = random.Random(f"{self.options.seed}/{number}")
            outage = number % OUTAGE_EVERY == OUTAGE_EVERY // 2
            try:
                await slot.round(rng, outage=outage)
            except Exception as error:
                what = str(error) if isinstance(error, OracleError) else traceback.format_exc()
                story = "\n".join(slot.story)
                self.failed = self.failed or (
                    f"Round {number} of seed {self.options.seed} failed in pipeline {slot.number} "
                    f"({slot.folder}, log.N are its lives):\n{story}\n{what}"
                )
            if self.failed:
                return
            self.finished += 1
            if self.finished % 10 == 0:
                print(f"{self.finished} rounds, {time.monotonic() - self.begun:.0f} s", flush=True)

    begun = time.monotonic()

    def report(self) -> str:
        seconds = time.monotonic() - self.begun
        lines = [
            f"{self.finished} rounds in {seconds:.0f} s ({seconds / max(1, self.finished):.2f} s each), seed {self.options.seed}"
        ]
        lines += [f"  {times:>7,}  {what}" for what, times in sorted(self.done.items())]
        lines += [f"  {times:>7,}  {what}" for what, times in self.totals.items()]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="The number of the first round.")
    parser.add_argument("--slots", type=int, default=4, help="Pipelines at work at the same time.")
    parser.add_argument(
        "--folder", type=Path, help="Where everything is kept; default: a new one, removed when all is well."
    )
    parser.add_argument("--keep", action="store_true", help="Keep the folder also when all is well.")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="oracle-"))
    folder.mkdir(parents=True, exist_ok=True)
    oracle = Oracle(folder.resolve(), options)
    asyncio.run(oracle.run())
    print(oracle.report())
    if oracle.failed:
        print(f"\nFAILED. {oracle.failed}\nKept: {folder}")
        return 1
    print("Nothing was lost, altered or invented.")
    if not options.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
