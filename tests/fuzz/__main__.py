"""``python -m fuzz`` with ``tests`` on the path: prints a table, exits 1 on any fault."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz.harness import Outcome, run
from fuzz.readers import READERS


def main() -> int:
    """Run the readers named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help="default: all")
    parser.add_argument("--inputs", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=Path, default=Path(".hypothesis/fuzz"), help="folder")
    given = parser.parse_args()
    unknown = set(given.readers) - READERS.keys()
    if unknown:
        parser.error(f"no reader {', '.join(sorted(unknown))}; known: {', '.join(READERS)}")
    chosen = [READERS[name] for name in given.readers or READERS]
    total = sum(reader.share for reader in chosen)
    print(Outcome.HEADER)
    faults = 0
    for reader in chosen:
        count = -(-given.inputs * reader.share // total)
        outcome = run(reader, count, given.seed, given.faults)
        print(outcome.line(), flush=True)
        faults += len(outcome.faults)
        for fault in outcome.faults:
            print(f"  {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
