"""`python -m campaign`: see `make prove`."""

import argparse
import shutil
import sys
from pathlib import Path

import uvloop
from msgspec.structs import replace
from rich.console import Console
from support import servers

from campaign import report
from campaign.defects import DEFECTS
from campaign.embedded import Embedded
from campaign.installed import installed
from campaign.plan import DEFAULTS, NO_FAULT, Options, patterns, unmatched
from campaign.plot import draw
from campaign.real import on_real_servers, real_servers
from campaign.run import Outcome, prove


def main() -> int:
    """Run a campaign as it is asked for, show and keep what came of it."""
    parser = _parser()
    chosen = vars(parser.parse_args())
    folder = Path(chosen.pop("folder"))
    options = replace(
        DEFAULTS[chosen["stack"]], **{name: value for name, value in chosen.items() if value is not None}
    )
    if unknown := unmatched(options):
        parser.error(
            f"no fault of the {options.stack} stack is called {', '.join(unknown)}: see "
            f"tests/campaign/plan.py, or try '* save.after'"
        )
    folder = (folder / f"{options.stack}-{options.seed}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    console = Console()
    if options.stack == "real" and (reason := servers.missing_docker()):
        console.print(f"the real stack needs Docker: {reason}", highlight=False)
        return 2
    outcome = uvloop.run(_proved(options, folder, console))
    report.show(console, outcome)
    files = (
        f"history: {report.write(outcome, folder)}\npicture: {draw(outcome, folder / 'time-to-charge.png')}"
    )
    console.print(f"again: {report.command(options)}\n{files}", highlight=False, soft_wrap=True)
    return report.exit_code(outcome)


async def _proved(options: Options, folder: Path, console: Console) -> Outcome:
    if (options.store, options.transport) != ("sqlite", "sqlite"):
        with installed(folder, options) as plugged, report.watching(console) as watch:
            return await prove(options, plugged, watch)
    if options.stack == "embedded":
        with report.watching(console) as watch:
            return await prove(options, Embedded(folder, options), watch)
    console.print("starting MongoDB and Kafka in containers ...")
    with (
        real_servers() as below,
        on_real_servers(folder, options, below) as stack,
        report.watching(console) as watch,
    ):
        return await prove(options, stack, watch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make prove", description="Load, faults and a ledger: is every finish charged exactly once?"
    )
    helps = {
        "seed": "the same seed, the same plan",
        "minutes": "at least so long",
        "faults": "at least so many",
        "appointments": "at least so many",
        "bound": "give up after so many seconds of load (0: three times the minutes, and four minutes)",
        "clients": "people at the front desk",
        "share": "of all requests, below which no further fault is made",
        "pace": "seconds that each of them rests between two appointments",
        "lease": "seconds for which a relay holds what it was handed",
        "over": "seconds within which a service ends once a loop or a thread behind it has",
        "patience": "seconds without a new charge, at the end, after which what is missing counts as lost",
    }
    for name, text in helps.items():
        default = getattr(DEFAULTS["embedded"], name)
        parser.add_argument(f"--{name}", type=type(default), help=text)
    parser.add_argument("--store", help="instead of sqlite: any that is installed")
    parser.add_argument("--transport", help="the same")
    parser.add_argument("--server", help="a file whose SERVER is started and killed: see docs/plugins.md")
    parser.add_argument("--stack", choices=["embedded", "real"], default="embedded")
    parser.add_argument(
        "--defect", choices=["none", *DEFECTS], help="plant one: see tests/campaign/defects.py"
    )
    parser.add_argument(
        "--only", type=patterns, help=f"faults, such as 'kill *,* save.after'; '{NO_FAULT}': none at all"
    )
    parser.add_argument("--folder", default="var/prove", help="where the history and the picture go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
