"""Plays the whole matrix in two processes and prints it: `make test-faults`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.faults.cells import cells
from tests.faults.report import summary, table
from tests.faults.running import Result, run_cells

BATCH = 120


def main() -> int:
    """Play, print, and return 1 if a cell failed."""
    parser = argparse.ArgumentParser(prog="make test-faults", description=__doc__)
    parser.add_argument("text", nargs="?", default="", help="only cells whose name holds it")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many processes")
    asked = parser.parse_args()
    chosen = [cell for cell in cells() if asked.text in cell.label]
    if not chosen:
        sys.stderr.write(f"no cell is called `{asked.text}`\n")
        return 2
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    results = []
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        for done in pool.map(run_cells, batches):
            results += done
            _tell(done, len(results), len(chosen))
    sys.stdout.write("\n".join([table(results), "", *summary(results)]) + "\n")
    return 0 if all(result.passed for result in results) else 1


def _tell(done: Sequence[Result], played: int, of: int) -> None:
    """Say on stderr what failed as soon as that is known, and how far it is."""
    for result in done:
        if not result.passed:
            sys.stderr.write(f"failed: {result}\n")
    sys.stderr.write(f"{played} of {of} cells\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
