"""Kill a report again and again, and see whether it ends as an unbroken one does.

    python scripts/kill_report.py [--kills 10] [--at-the-end 3] [--seed 0] -- photos/ --methods lrp,normgrad

Everything behind -- goes to `attrib report`; --out is added. The command runs once unbroken. Then it is started and
killed (SIGKILL) so many times, run to its end, and the two folders are compared file by file, less times, memory and
the machine. A kill comes after a random number of rows and a random time; the last ones once a random one of the files
that close a report (tables, pages, PDF) is half-written or has just been written. Exit status 1 when they differ.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from attrib.reports import Store
from attrib.reports.identity import contents

LAST = ("results.parquet", "results.csv", "dataset.html", "report.pdf", "index.html")
Running = subprocess.Popen[bytes]


def command(arguments: list[str], out: Path) -> list[str]:
    return [sys.executable, "-m", "attrib.cli", "report", *arguments, "--out", str(out)]


def finished_rows(out: Path) -> int:
    try:
        store = Store.open(out)
    except Exception:
        return 0
    try:
        return sum(1 for _ in store.rows())
    finally:
        store.close()


def wait_for_rows(running: Running, out: Path, generator: random.Random, rows: int, seconds: float) -> str:
    """Till up to so many more rows are finished, and up to so many seconds more."""
    wanted = finished_rows(out) + generator.randint(0, rows)
    while running.poll() is None and finished_rows(out) < wanted:
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        running.wait(generator.uniform(0, seconds))
    return "while explaining" if unfinished(out) else "later"


def wait_for_end(running: Running, out: Path, generator: random.Random) -> str:
    """Till one of the last files is begun, or has just been written."""
    name = generator.choice(LAST)
    before = changed(out / name)
    while running.poll() is None:
        if (out / f"{name}.partial").exists():
            return f"with {name} half-written"
        if changed(out / name) != before:
            return f"just after {name}"
        time.sleep(0.0005)
    return ""


def changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def unfinished(out: Path) -> bool:
    return not any((out / f"{name}{end}").exists() for name in LAST for end in ("", ".partial"))


def main() -> int:
    """Run, kill, compare; 0 when the reports are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--at-the-end", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("report", nargs="+")
    given = parser.parse_args()
    generator = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        started = time.perf_counter()
        subprocess.run(command(given.report, whole), check=False, capture_output=True)
        life = time.perf_counter() - started
        rows = finished_rows(whole)
        print(f"unbroken: {life:.1f} s, {rows} rows, {len(contents(whole))} files", flush=True)
        for kill in range(given.kills):
            running = subprocess.Popen(
                command(given.report, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if kill < given.kills - given.at_the_end:
                until = wait_for_rows(running, broken, generator, rows // given.kills, life / given.kills)
            else:
                until = wait_for_end(running, broken, generator)
            state = f"killed {until}" if running.poll() is None else "had ended"
            running.kill()
            running.wait()
            print(f"{kill + 1}: {state} with {finished_rows(broken)} of {rows} rows finished", flush=True)
        ended = subprocess.run(command(given.report, broken), check=False, capture_output=True, text=True)
        one, other = contents(whole), contents(broken)
        differing = sorted(name for name in one | other if one.get(name) != other.get(name))
        print(f"resumed: exit status {ended.returncode}, {finished_rows(broken)} rows")
        print(f"differing files: {differing or 'none'}")
        return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
