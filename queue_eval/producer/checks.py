"""What can be known to be wrong before anything is enqueued."""

from collections.abc import Callable, Iterable, Iterator

from queue_eval.core.case import Case
from queue_eval.core.errors import DataError

SHOWN = 10

MissingFields = Callable[[Case], Iterable[str]]


def checked(cases: Iterable[Case], missing_fields: MissingFields) -> Iterator[Case]:
    """The same cases. DataError at the end, naming the first few that a metric cannot score."""
    problems: list[str] = []
    count = total = 0
    for case in cases:
        total += 1
        faults = [f"{case.place}: {fault}" for fault in missing_fields(case)]
        if faults:
            count += 1
            problems += faults[: max(0, SHOWN - len(problems))]
            continue
        yield case
    if problems:
        rest = f"\n… {count} of {total} cases in all" if count > len(problems) else ""
        raise DataError(
            "\n".join(problems) + rest + "\nadd the fields, leave the metric out, or choose other cases with --tag"
        )
