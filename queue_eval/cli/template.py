"""The template that `run` and `demo` fork their workers from."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from queue_eval.local.forks import Template

# Whatever a worker imports sooner or later, of ours and of others; user code is imported in the workers alone.
_OF_A_WORKER = (
    "queue_eval.cli.worker",
    "queue_eval.judge.scorer",
    "queue_eval.judge.openai",
    "queue_eval.judge.imported",
    "queue_eval.judge.lexical",
    "queue_eval.judge.resolution",
    "queue_eval.judge.secrets",
)


def import_worker() -> None:
    for name in _OF_A_WORKER:
        importlib.import_module(name)


@contextmanager
def worker_template() -> Iterator[Template | None]:
    """Yield the template, or None where a fork is not safe.

    Enter it before threads are started, files opened, or metrics of the user's imported.
    """
    from queue_eval.cli.main import main  # noqa: PLC0415 - which imports the commands, and so this file

    import_worker()
    template = Template.forked(main)
    if template is None:
        yield None
        return
    with template:
        yield template
