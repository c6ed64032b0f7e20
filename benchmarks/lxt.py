"""AttnLRP and CP-LRP beside LXT 2.1: CPU seconds of both, and of the bare pass in each one's own transformers.

LXT imports names that newer transformers do not have, and patches classes for a whole process. So it gets its own
transformers, and processes of its own (`lxt_process`); those of a network live together, and their calls take turns.

    pip install --target OLD --no-deps transformers==4.52.4 "huggingface_hub<1" "tokenizers<0.22" lxt==2.1
    python -m benchmarks.lxt OLD
    python -m benchmarks.lxt OLD --networks smollm2-135m --tokens 512
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lxt_process import BARE

TOKENS = (32, 128, 512)
PRESETS = {"bert-base": ("attn_lrp",), "gpt2-small": ("attn_lrp", "cp_lrp"), "smollm2-135m": ("attn_lrp", "cp_lrp")}
_FEWEST = 3
_HEAD = ("preset", "network", "tokens", "LXT", "attrib", *(f"{name} / its bare pass" for name in ("LXT", "attrib")))


def main(
    old: Annotated[Path, typer.Argument(help="Folder of LXT and its transformers.", exists=True, file_okay=False)],
    networks: Annotated[str, typer.Option(help="With commas.")] = ",".join(PRESETS),
    tokens: Annotated[str, typer.Option(help="Lengths, with commas.")] = ",".join(map(str, TOKENS)),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a length; medians count.")] = 7,
    seconds: Annotated[float, typer.Option(help="No further round of a length after so long.")] = 45.0,
) -> None:
    """Print the table, a row a case, as it grows. What fails is told, and the next network follows."""
    asked = networks.split(",")
    if unknown := set(asked) - set(PRESETS):
        raise typer.BadParameter(f"no network {min(unknown)!r}; there are {', '.join(PRESETS)}")
    print(_row([*_HEAD, "attrib / LXT"]), _row(["---"] * (len(_HEAD) + 1)), sep="\n", flush=True)
    for network in asked:
        try:
            for row in _rows(str(old.resolve()), network, [int(n) for n in tokens.split(",")], rounds, seconds):
                print(_row(row), flush=True)
        except (ProcessEnded, OSError) as error:
            sys.stderr.write(f"{network}: {error}\n")


class ProcessEnded(RuntimeError):
    """A process that was asked is gone; what it said stands on stderr."""


@dataclass(frozen=True)
class Asked:
    """A call of a process: it is run there, and answered with its CPU seconds."""

    process: subprocess.Popen[str]
    call: str

    def seconds(self, tokens: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{self.call} {tokens}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise ProcessEnded(f"{' '.join(self.process.args[3:])} ended with {self.process.wait()}")  # type: ignore[index,arg-type]
        return float(answer)


def _rows(old: str, network: str, lengths: Sequence[int], rounds: int, most: float) -> Iterator[list[str]]:
    presets = PRESETS[network]
    with ExitStack() as stack:
        own = stack.enter_context(_process("ours", network))
        theirs = {name: stack.enter_context(_process("lxt", network, old, name)) for name in ("", *presets)}
        asked = {("lxt", name or BARE): Asked(process, name or BARE) for name, process in theirs.items()}
        asked |= {("attrib", name): Asked(own, name) for name in (BARE, *presets)}
        for tokens in lengths:
            taken = _taking_turns(asked, tokens, rounds, most)
            yield from ([name, network, str(tokens), *_cells(taken, name)] for name in presets)


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.lxt_process", *arguments]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


Taken = dict[tuple[str, str], list[float]]  # (whose, call) -> CPU seconds, round by round


def _taking_turns(asked: dict[tuple[str, str], Asked], tokens: int, rounds: int, most: float) -> Taken:
    for one in asked.values():
        one.seconds(tokens)  # caches are warm afterwards
    taken: Taken = {name: [] for name in asked}
    begun = time.monotonic()
    for done in range(rounds):
        if done >= _FEWEST and time.monotonic() - begun > most:
            break
        for name, one in asked.items():
            taken[name].append(one.seconds(tokens))
    return taken


def _cells(taken: Taken, preset: str) -> list[str]:
    lxt, ours = ("lxt", preset), ("attrib", preset)

    def ratio(above: tuple[str, str], below: tuple[str, str]) -> str:
        return f"{statistics.median(a / b for a, b in zip(taken[above], taken[below], strict=True)):.2f}×"

    seconds = [f"{1000 * statistics.median(taken[whose]):.0f} ms" for whose in (lxt, ours)]
    return [*seconds, ratio(lxt, ("lxt", BARE)), ratio(ours, ("attrib", BARE)), ratio(ours, lxt)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
