"""The error tree, classed by what the caller does about it.

QueueEvalError
├── ImportFailedError   70  a part of the program, or of what it needs, cannot be imported
├── UsageError          64  the command line
├── DataError           65  a case file or a stored object that cannot be used
│   ├── ManifestError       manifest.json is damaged, or of another version
│   └── RunConflictError    another manifest already stands under this run id
│       └── RunAbortedError     the run is over for good
├── NoInputError        66  a file or a run that is not there
├── UnavailableError    69  Redis, the store or the judge cannot be reached
├── StoreError          73  the result store cannot be written
├── InterruptedRunError 75  stopped before the end; everything was released
├── JudgeRefusedError   77  the judge refuses us (key, quota, unknown model)
└── ConfigError         78  the YAML or the environment
    └── AccessError         a server refuses our credentials or rights

A message names the object, its value and the remedy. The command line prints it and nothing else.
"""

from typing import ClassVar


class QueueEvalError(Exception):
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str = "", *, command: str = "") -> None:
        """`command`: of ours, named in the message; the command line adds the options that name where the run is."""
        super().__init__(message)
        self.command = command


class ImportFailedError(QueueEvalError):
    def __init__(self, error: BaseException) -> None:
        # the interpreter's own exit code for it is 1, which would read as a failed gate
        super().__init__(
            f"it cannot be imported ({type(error).__name__}: {error}); mend what this Python finds on its path"
        )


class UsageError(QueueEvalError):
    exit_code = 64


class DataError(QueueEvalError):
    exit_code = 65


class ForeignKeysError(DataError):
    def __init__(self, run_id: str, error: Exception) -> None:
        super().__init__(
            f"run {run_id!r}: Redis holds what queue-eval did not write ({type(error).__name__}: {error}); delete the"
            " run's keys, which have its id in their names, and enqueue it again under that id: what is in the store"
            " stays"
        )


class ManifestError(DataError):
    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(
            f"run {run_id!r}: manifest.json cannot be read ({why}); was it written by another version? Start a new run"
        )


class RunConflictError(DataError):
    pass


class RunAbortedError(RunConflictError):
    def __init__(self, run_id: str) -> None:
        command = f"queue-eval finalize {run_id}"
        super().__init__(
            f"run {run_id!r} was aborted, and that is for good:"
            f" choose another --run-id, or report what it has with {command}",
            command=command,
        )


class NoInputError(QueueEvalError):
    exit_code = 66


class UnavailableError(QueueEvalError):
    exit_code = 69


class StoreError(QueueEvalError):
    exit_code = 73


class InterruptedRunError(QueueEvalError):
    exit_code = 75


class JudgeRefusedError(QueueEvalError):
    exit_code = 77


class ConfigError(QueueEvalError):
    exit_code = 78


class AccessError(ConfigError):
    pass


EXIT_DRAINED = 0
EXIT_FAILED = 1
EXIT_INCONCLUSIVE = 2
EXIT_ABORTED = 65
EXIT_READER_LEFT = 74  # our output cannot be written: no verdict, whatever it was
EXIT_INTERRUPTED = 75
