"""`queue-eval COMMAND`. A usage error becomes one message and a sysexits code; a traceback is a defect of ours."""

import signal
import sys
from pathlib import Path

import click

from queue_eval import __version__
from queue_eval.build_commit import build_commit
from queue_eval.cli.commands import Commands
from queue_eval.cli.options import Place
from queue_eval.cli.output import OutputClosedError, print_defect, print_error
from queue_eval.core.errors import EXIT_READER_LEFT, ConfigError, QueueEvalError, UsageError
from queue_eval.standard_streams import show_all_characters, unread

EXIT_SIGINT = 130  # as shells have it

COMMANDS = {
    "init": "write a commented eval.yaml and two cases",
    "validate": "check eval.yaml, its metrics and its cases",
    "run": "a whole run on this machine: from a case file to a verdict",
    "demo": "the run that shows what it does: no key, no server, under 30 s",
    "enqueue": "put the cases of a run into a shared Redis",
    "worker": "score cases of a run until it is drained",
    "finalize": "wait for drained, write the report, exit with the verdict",
    "status": "how a run and its limiter stand",
    "tune": "change limits, priority or concurrency while a run goes on",
    "abort": "end a run: what is held is released, what was scored stays",
    "retry": "give the dead cases of a run another try",
    "k8s": "a run on a Kubernetes cluster: render, submit, status, scale, wait, …",
    "judge": "serve the lexical judge as an OpenAI-compatible endpoint on loopback",
}


def _print_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"queue-eval, version {__version__} (commit {build_commit()})")
        context.exit()


@click.group(
    cls=Commands,
    commands_of=COMMANDS,
    package="queue_eval.cli",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="print the version and the commit",
)
def group() -> None:
    """Run DeepEval evaluations at scale: a Redis queue of cases, many workers, one rate limit, a verdict.

    Exit codes of run, finalize and demo: 0 passed, 1 failed, 2 inconclusive or incomplete, 75 stopped and resumable, 64
    to 78 are usage errors, by sysexits.
    """


def main() -> None:
    show_all_characters()
    code = _outcome()
    # that word stands: the interpreter takes a while to end, and without a handler a SIGTERM would make a death of it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _outcome() -> int:
    """Run the command; return its exit code. Errors are printed."""
    place = Place()
    try:
        _working_folder()
        code = group.main(standalone_mode=False, obj=place)
    except click.ClickException as error:
        print_error(error.format_message())
        code = UsageError.exit_code
    except QueueEvalError as error:
        print_error(place.completed(error))
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print_error("stopped")
        code = EXIT_SIGINT
    except SystemExit:
        # its code would be taken for ours: 0 for a run that is drained
        print_error("a metric, a judge model or what they import has called sys.exit; take that out of it")
        code = QueueEvalError.exit_code
    except OutputClosedError as error:
        if why := str(error):
            print_error(f"standard output cannot be written ({why}); what was done stands")
        unread(sys.stdout)
        code = EXIT_READER_LEFT
    except Exception as error:  # noqa: BLE001 - exit code 1 would read as a failed gate
        print_defect(error)
        code = QueueEvalError.exit_code
    return code if isinstance(code, int) else 0


def _working_folder() -> None:
    """ConfigError when it has been removed: paths, imports and workers begin there."""
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working folder cannot be used: {error.strerror}; change into one that exists") from None
