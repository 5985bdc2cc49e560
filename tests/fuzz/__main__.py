"""`python -m fuzz`: see `make fuzz`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from fuzz.runs import a_pair, audit, fuzz

PER_EXAMPLE = 15
"""Requests that an example makes at least: one for each operation of both documents."""
PATIENCE = 1.0
"""Seconds that a request may take on average."""


async def main(requests: int, seed: int) -> int:
    """Print what each fuzzer saw, and what the audit says. 0 if all of it is as the documents describe."""
    with tempfile.TemporaryDirectory() as folder:
        pair = a_pair(Path(folder))
        print(f"at least {requests} requests, seed {seed} ...", flush=True)
        try:
            found = await fuzz(pair, max(1, requests // PER_EXAMPLE), seed, within=60 + requests * PATIENCE)
            audited = await audit(pair)
        finally:
            for service in pair.services:
                service.clean_up()
    for fuzzed in found:
        print(f"\n{fuzzed.service}\n{fuzzed.report}")
    print(audited.printed + audited.complained)
    print(f"{sum(fuzzed.requests for fuzzed in found)} requests, seed {seed}")
    return int(audited.exit_code != 0 or not all(fuzzed.is_good for fuzzed in found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.requests, asked.seed)))
