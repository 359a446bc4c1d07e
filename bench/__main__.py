"""`python -m bench`: measure Everloop beside what this machine allows (`--help` says how)."""

from __future__ import annotations

import argparse
import compileall
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import document, limits, report
from bench.before import NoRecordError, first_ratios
from bench.figures import Figure, Plan
from bench.gates import GATES, KEPT, Fall, Past, Verdict, comparable, fallen, judge
from bench.measures import cancelling, footprint, latency, scale, servers, sleeping, throughput
from bench.place import ROOT, PlaceError, choose, facts
from bench.processes import ProcessError
from tests.helpers.servers.binaries import ServerMissing
from tests.helpers.servers.place import ServerFailed

Measure = Callable[[Plan], list[Figure]]
MEASURES: Mapping[str, Measure] = {
    "limits": limits.measure,
    "calls": throughput.calls,
    "many": throughput.many,
    "drain": throughput.drain,
    "embedded": throughput.embedded,
    "latency": latency.across,
    "within": latency.within,
    "cancel": cancelling.tree,
    "sleeps": sleeping.sleeps,
    "programs": sleeping.programs,
    "due": scale.due,
    "strangers": scale.strangers,
    "import": footprint.importing,
    "postgresql": servers.postgresql,
    "mariadb": servers.mariadb,
}


def main(arguments: Sequence[str]) -> int:
    """Run the chosen measures; return 0 unless one failed, or `--check` found a broken gate."""
    options = _parse(arguments)
    if options.document:
        document.write(Path(options.document) if options.document != "newest" else None)
        return 0
    try:
        parent = choose(options.dir)
        past = first_ratios() if options.check and not options.quick else {}
    except (PlaceError, NoRecordError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _compile_package()
    started, others = time.monotonic(), _others_cpu()
    with tempfile.TemporaryDirectory(prefix="everloop-bench-", dir=parent) as place:
        known = facts(Path(place)) | servers.versions()
        print(report.header(known), end="\n\n", flush=True)
        found = _measure(options, Path(place))
        judged = _again(options, Path(place), found, past) if options.check else found
    known["others"] = f"{_share(others, started):.0f} % of the cores were busy with other programs"
    print(f"\n{known['others']}; {time.monotonic() - started:.0f} s in all")
    if options.save:
        print(f"kept in {report.save(report.as_json(known, _flat(found), quick=options.quick))}")
    broken = _broken(_flat(judged), past)
    if options.check:
        _say_gates(_flat(judged), broken, past)
    failed = any(not figures for figures in found.values())
    return 1 if failed or (options.check and broken) else 0


def _compile_package() -> None:
    """Compile what the measured processes import, as pip does when it installs a package."""
    for folder in ("src", "examples", "bench"):
        compileall.compile_dir(ROOT / folder, quiet=2)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Everloop beside what this machine allows. Figures are medians, ± is half their "
        "range, x is the ratio to the limit in brackets, measured in the same minute.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(MEASURES)} (default: all)"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 when a ratio is out of its bound (bench/gates.py) or, without --quick, has less "
        f"than {KEPT} left of what it was in the first record of bench/results that has it",
    )
    parser.add_argument(
        "--quick", action="store_true", help="smaller amounts and three rounds: about two minutes"
    )
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="samples per figure (default: 5)")
    parser.add_argument(
        "--dir", type=Path, metavar="FOLDER", help="measure on this disk (default: the temporary folder)"
    )
    parser.add_argument(
        "--no-save", dest="save", action="store_false", help="do not write bench/results/DATE-COMMIT.json"
    )
    parser.add_argument(
        "--document", nargs="?", const="newest", metavar="FILE",
        help="fill docs/performance.md from this record, or the newest one, and measure nothing",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MEASURES]
    if unknown:
        parser.error(f"unknown measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if options.rounds < 0:
        parser.error("--rounds is at least 1")
    # Part of the measures, or small amounts, are no record of the whole.
    options.save = options.save and not options.names and not options.quick
    return options


def _measure(options: argparse.Namespace, place: Path) -> dict[str, list[Figure]]:
    """Return the figures of each measure; none of one that failed."""
    left_out = () if options.names else servers.missing()
    return {name: _run(name, options, place) for name in options.names or MEASURES if name not in left_out}


def _run(name: str, options: argparse.Namespace, place: Path) -> list[Figure]:
    rounds = options.rounds or (3 if options.quick else 5)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=place) as folder:
        try:
            figures = MEASURES[name](Plan(Path(folder), rounds, options.quick, say=_say))
        except (ProcessError, ServerMissing, ServerFailed) as error:
            print(f"{name}: FAILED: {error}", flush=True)
            return []
    for figure in figures:
        print(report.row(figure), flush=True)
    return figures


def _again(
    options: argparse.Namespace,
    place: Path,
    found: Mapping[str, list[Figure]],
    past: Mapping[str, Past],
) -> dict[str, list[Figure]]:
    """Measure anew, twice at most, what broke a gate: other programs can only make a ratio worse."""
    judged = dict(found)
    for _ in range(2):
        for name, figures in list(judged.items()):
            if broken := _broken(figures, past):
                names = sorted({each.figure.name for each in broken})
                print(f"once more, because of {', '.join(names)}:", flush=True)
                judged[name] = _run(name, options, place)
    return judged


def _flat(found: Mapping[str, list[Figure]]) -> list[Figure]:
    return [figure for figures in found.values() for figure in figures]


def _broken(figures: Sequence[Figure], past: Mapping[str, Past]) -> list[Verdict | Fall]:
    broken = [verdict for verdict in judge(figures) if verdict.gates and not verdict.holds]
    return [*broken, *fallen(figures, past)]


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"  ({line})", file=sys.stderr, flush=True)


def _say_gates(figures: Sequence[Figure], broken: Sequence[Verdict | Fall], past: Mapping[str, Past]) -> None:
    for each in broken:
        print(each.told)
    compared = {figure.name for figure in comparable(figures, past)}
    if left_out := [
        figure.name for figure in figures if figure.name in GATES and figure.name not in compared
    ]:
        print(f"not compared with a record: {', '.join(left_out)}")
    if not broken:
        kept = f", and {len(compared)} ratios are at least {KEPT} of what they were" if compared else ""
        print(f"all {sum(v.gates for v in judge(figures))} gates hold{kept}")


def _others_cpu() -> float:
    """Seconds that all cores spent on anything but this program and its children."""
    with Path("/proc/stat").open(encoding="ascii") as stat:
        user, nice, system, _, _, irq, softirq, *_ = map(int, stat.readline().split()[1:])
    times = os.times()
    busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return busy - (times.user + times.system + times.children_user + times.children_system)


def _share(before: float, started: float) -> float:
    return (_others_cpu() - before) / (time.monotonic() - started) / (os.cpu_count() or 1) * 100


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
