"""A million damaged inputs for everything that reads what senders sent, and what came of them.

    python tests/fuzz/fuzz.py --inputs 1000000 --seed 1
    python tests/fuzz/fuzz.py --inputs 0 --live 20000    # against a node in a process of its own
    python tests/fuzz/fuzz.py --seed 1 --again files 47  # one input once more, traceback and all

Every target of `targets` and `kept` gets its share. An input is made from the seed, the target and
its number alone. Found is: an exception that the target does not declare, more than `CPU_SECONDS`
for one input, or more bytes of memory than the target has room for, after warming up.
Against a live node also: an echo that is not answered, a handler that failed, a thread or a file
left open. Ends with status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from accidents import changed  # noqa: E402
from altered import altered_targets  # noqa: E402
from asked import Doors, asked_targets  # noqa: E402
from kept import kept_targets  # noqa: E402
from target import Finding, Target  # noqa: E402
from targets import Wire, targets  # noqa: E402

CPU_SECONDS = 5.0
"""Of one input; the slowest honest ones take a few hundredths."""

WARM = 500
"""Inputs of each target before memory is looked at, at most."""

REPORTED = 20
"""Findings of one target, at most: then it is broken, and told so."""

SILENCE = 120
"""Seconds without an input done, after which the process shows where it hangs, and ends."""


class Endless(BaseException):
    """An input took more than its share of the processor. Not an Exception: nothing may eat it."""


@dataclass(slots=True)
class Outcome:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        why = ", ".join(f"{name} {count}" for name, count in self.refused.most_common())
        return f"{self.target:32} {self.inputs:8} inputs, {self.read} read, {why or 'none refused'}"


def made(target: Target, seed: int, number: int) -> bytes:
    """Input `number` of the target."""
    chance = random.Random(f"{seed} {target.name} {number}")
    return changed(chance.choice(target.sound), chance, target.sound)


@contextmanager
def watched() -> Iterator[Callable[[], None]]:
    """Gives a function to call before each input; raises Endless where one takes too long."""

    def endless(_signal: int, _frame: object) -> None:
        raise Endless

    # The processor's time and not the clock's: on a busy machine nothing hangs that only waits.
    previous = signal.signal(signal.SIGPROF, endless)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS) and None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def feed(target: Target, seed: int, numbers: range, arm: Callable[[], None]) -> Outcome:
    """Give the target its inputs of these numbers."""
    outcome = Outcome(target.name)
    for number in numbers:
        data = made(target, seed, number)
        outcome.inputs += 1
        arm()
        try:
            target.read(data)
        except target.declared as refusal:
            outcome.refused[type(refusal).__name__] += 1
        except (Exception, Endless) as error:
            outcome.found.append(Finding(target.name, number, repr(error)))
            if len(outcome.found) >= REPORTED:
                break
        else:
            outcome.read += 1
    return outcome


def peak() -> int:
    """Bytes of the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def everything(only: str) -> Iterator[list[Target]]:
    """All targets; those of the HTTP doors where names that begin with `only` may be theirs."""
    with contextlib.ExitStack() as stack:
        every = [*targets(stack.enter_context(Wire())), *kept_targets(), *altered_targets()]
        if "asked".startswith(only[:5]):
            every += asked_targets(stack.enter_context(Doors()))
        yield every


def run(inputs: int, seed: int, told: Callable[[str], None], only: str = "") -> list[Finding]:
    """Share `inputs` out among all targets whose names begin with `only`."""
    found: list[Finding] = []
    with watched() as arm, everything(only) as every:
        all_targets = [one for one in every if one.name.startswith(only)]
        share = -(-inputs // len(all_targets))
        for target in all_targets:
            feed(target, seed, range(-min(WARM, share), 0), arm)
        before = peak()
        for target in all_targets:
            faulthandler.dump_traceback_later(SILENCE + share / 20, exit=True)
            began = time.process_time()
            outcome = feed(target, seed, range(share), arm)
            each = (time.process_time() - began) / max(1, outcome.inputs)
            grown, before = peak() - before, peak()
            told(f"{outcome}; {each * 1e6:.0f} us each, memory +{grown >> 20} MB")
            if grown > target.room:
                outcome.found.append(Finding(target.name, -1, f"memory grew by {grown >> 20} MB"))
            for one in outcome.found:
                told(f"  FOUND {one}")
            found += outcome.found
        faulthandler.cancel_dump_traceback_later()
    return found


def again(name: str, number: int, seed: int) -> None:
    """One input once more, its exception not caught."""
    with everything(name) as every:
        (target,) = [one for one in every if one.name == name]
        data = made(target, seed, number)
        print(len(data), data[:400].hex(" "))
        target.read(data)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for all targets together")
    parser.add_argument("--live", type=int, default=0, help="conversations with a live node")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="how the names of the targets begin")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "NUMBER"))
    given = parser.parse_args(arguments)
    if given.again:
        again(given.again[0], int(given.again[1]), given.seed)
        return 0

    def told(line: str) -> None:
        print(line, flush=True)

    told(f"seed {given.seed}, process {os.getpid()}")
    found = run(given.inputs, given.seed, told, given.only) if given.inputs else []
    if given.live:
        from live import converse  # what starts a node is not needed for the rest

        with tempfile.TemporaryDirectory(prefix="exchange-fuzz-") as home:
            found += converse(Path(home), given.live, given.seed, told)
    told(f"{given.inputs + given.live} inputs, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
