"""A group of commands, each in a file of its own."""

import importlib
from collections.abc import Iterator
from typing import Any

import click

from queue_eval.cli.output import OutputClosedError, print_notice, writing_output
from queue_eval.core.errors import ImportFailedError

# read for one release more, with a warning
RENAMED = {
    "--wait-s": "--wait-timeout",
    "--follow-s": "--status-interval",
    "--blocked-s": "--blocked-timeout",
    "--filter": "--tag",
}


def _renamed(args: list[str]) -> Iterator[str]:
    """Yield the arguments with the present names of options."""
    are_options = True
    for arg in args:
        name, equals, value = arg.partition("=")
        are_options = are_options and arg != "--"
        if are_options and name in RENAMED:
            print_notice(f"{name} is called {RENAMED[name]} now; the old name goes with the next release")
            yield f"{RENAMED[name]}{equals}{value}"
        else:
            yield arg


class Commands(click.Group):
    """Imports a command's file only when it is called: `--help` need not wait for DeepEval."""

    def __init__(self, *args: Any, commands_of: dict[str, str], package: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands = commands_of
        self._package = package

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # it prints the help; click's own answer to a reader that has left is 1, which reads as a failed gate
        with writing_output():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # of a command's own help
            raise OutputClosedError from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, list(_renamed(args)))

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self._commands)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._commands:
            return None
        try:
            command = importlib.import_module(f"{self._package}.{cmd_name}").command
        except (Exception, SystemExit) as error:
            raise ImportFailedError(error) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self._package}.{cmd_name}.command is no command")
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._commands.items()))
