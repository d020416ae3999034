"""Tasks -> measurements: within a budget, one after the other, whatever fails."""

from __future__ import annotations

import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType

from benchmarks.gpu.kit import Kit
from benchmarks.gpu.record import Measurement, Results, Stage, Value
from fuscore_metric.errors import MissingPackageError
from fuscore_metric.optional import installed

AGAIN = 5.0
"""Seconds after which a limit that was caught by a library is enforced again."""


TRAINING = ("accelerate", "fuscore_training", "pandas", "peft", "scipy")
"""Packages without which nothing is trained."""


class SkippedError(Exception):
    """Raised by a task that cannot run here; the message says why."""


class OutOfTimeError(SkippedError):
    """What a task meets when the budget of its stage is spent."""


@dataclass(frozen=True)
class Task:
    """One measurement to be made.

    Attributes:
        name: Of the measurement.
        call: Gives values as it finds them; a whole `Measurement` stands beside this one.
        seconds: About how long it takes on a fast GPU. It is left out if less is left.
    """

    name: str
    call: Callable[[], Iterable[Value | Measurement]]
    seconds: float = 3.0


Tasks = Callable[[Kit], Iterator[Task]]


def run(kit: Kit, names: Sequence[str], stages: dict[str, Tasks] | None = None) -> bool:
    """Run stages and write their results; returns whether nothing failed.

    Args:
        kit: What to run on, and how much.
        names: Of the stages, in order.
        stages: All there are, by name.
    """
    from benchmarks.gpu.facts import facts
    from benchmarks.gpu.stages import STAGES

    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    asked = {"device": kit.device.type, "quick": kit.quick, "stages": list(names)}
    results = Results(kit.folder, {"command": command, "started": started, **asked})
    results.environment = facts(kit.device)
    for name in names:
        run_stage(results, kit, name, (stages or STAGES)[name])
    return all(stage.outcome != "failed" for stage in results.stages)


def run_stage(results: Results, kit: Kit, name: str, tasks: Tasks) -> None:
    """Run one stage's tasks."""
    stage, started = Stage(name, kit.plan.budgets[name]), time.monotonic()
    results.stages.append(stage)
    results.say(f"{name}: at most {stage.budget:.0f} s")
    try:
        for task in tasks(kit):
            stage.seconds = time.monotonic() - started
            expected = task.seconds * kit.plan.pace
            _measure(results, stage, task, expected, stage.budget - stage.seconds)
            free(kit)
    except Exception as error:  # between the tasks: nothing else of this stage can follow
        stage.reason, stage.traceback = one_line(error), traceback.format_exc()
        results.say(f"{name} | FAILED: {stage.reason}")
    stage.seconds = time.monotonic() - started
    outcomes = {m.outcome for m in stage.measurements}
    failed = stage.traceback or "failed" in outcomes
    stage.outcome = "failed" if failed else "ok" if "ok" in outcomes else "skipped"
    results.say(f"{name}: {stage.outcome} after {stage.seconds:.0f} s")
    results.save()


def _measure(results: Results, stage: Stage, task: Task, expected: float, left: float) -> None:
    """Run one task for at most the time that is left, if the expected seconds fit into it."""
    found, started = Measurement(task.name), time.monotonic()
    stage.measurements.append(found)
    if expected > left:
        found.outcome = "skipped"
        found.reason = f"left out: takes {expected:.0f} s, {left:.0f} s of the budget are left"
    else:
        results.save()
        try:
            with time_limit(left):
                for value in task.call():
                    _add(results, stage, found, value)
            found.outcome = "ok"
        except Exception as error:
            if (reason := cannot(error)) is None:
                found.outcome, found.reason = "failed", one_line(error)
                found.traceback = traceback.format_exc()
            else:
                found.outcome, found.reason = "skipped", reason
    found.seconds = round(time.monotonic() - started, 3)
    if found.outcome != "ok":
        results.say(f"{stage.name} | {found.name} | {found.outcome.upper()}: {found.reason}")
    results.save()


def _add(results: Results, stage: Stage, found: Measurement, value: Value | Measurement) -> None:
    if isinstance(value, Measurement):
        stage.measurements.append(value)
        results.say(f"{stage.name} | {value.name} | {value.outcome} {value.reason}".rstrip())
    else:
        found.values.append(value)
        results.say(f"{stage.name} | {found.name} | {value}")
    results.save()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in what runs within, if it takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise OutOfTimeError(f"cut off after {seconds:.0f} s, all that was left of the budget")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1), AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cannot(error: Exception) -> str | None:
    """Why a task could not run here, if that is no failure: a reason of its own, or a package."""
    if isinstance(error, (SkippedError, MissingPackageError)):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return None if installed(package) else f"{package} is not installed"
    return None


def need(*packages: str) -> None:
    """Skip the task if a package is missing.

    Raises:
        SkippedError: One is; the message names it.
    """
    for package in packages:
        if not installed(package):
            raise SkippedError(f"{package} is not installed")


def one_line(error: BaseException) -> str:
    """Kind and message of an exception."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def free(kit: Kit) -> None:
    """Give back what the last task held."""
    gc.collect()
    if kit.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
