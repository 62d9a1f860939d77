"""What to do about the Jobs of a run, given how the run itself stands.

Pure: all four of Complete or Failed, drained or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from queue_eval.core.run import RunState
from queue_eval.kubernetes.status import JobSeen

MOST_JOBS = 5  # of workers for one run: more would repeat what does not work


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done."""

    why: str


@dataclass(frozen=True, slots=True)
class Another:
    """A further Job of workers on the same run."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class AnotherFinalizer:
    """The last one has failed without a verdict, or before the run's end."""

    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Only a person can mend it; the run stays as it is."""

    why: str


Decision = Rest | Another | AnotherFinalizer | GiveUp


def decide(jobs: Sequence[JobSeen], state: RunState | None) -> Decision:
    """`jobs`: those of workers. `state`: None while it is unknown."""
    if state is not None and state.over:
        # a Job that failed at its very end has done its work all the same
        return Rest(f"the run is {state}")
    going_on = [job.name for job in jobs if not job.ended]
    if going_on or not jobs or state is None:
        return Rest(f"Job {going_on[-1]} goes on" if going_on else "the run's state is unknown")
    return _after(max(jobs, key=lambda job: job.number), state)


def _after(last: JobSeen, state: RunState) -> Decision:
    """All Jobs have ended, and the run has not."""
    if last.ended == "Failed" and last.reason != "BackoffLimitExceeded":
        return GiveUp(f"Job {last.name} failed ({last.reason}) and the run is {state}: {last.message}")
    if last.number >= MOST_JOBS:
        return GiveUp(f"{MOST_JOBS} Jobs of workers have ended and the run is still {state}")
    if last.ended == "Complete":
        return Another(
            last.number + 1, f"Job {last.name} is Complete although the run is {state}: a worker left too early"
        )
    return Another(last.number + 1, f"Job {last.name} has used up its retries and the run is {state}")
