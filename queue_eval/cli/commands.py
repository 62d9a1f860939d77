"""A group of commands, each in a file of its own."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from queue_eval.core.errors import ImportFailedError


class OutputClosedError(Exception):
    """Standard output was closed."""


@contextmanager
def _closed_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        # click's own answer is exit code 1, which reads as a failed gate
        raise OutputClosedError from error


class Commands(click.Group):
    """Imports a command's file only when it is called: `--help` need not wait for DeepEval."""

    def __init__(self, *args: Any, commands_of: dict[str, str], package: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands = commands_of
        self._package = package

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _closed_output():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_output():
            return super().invoke(ctx)

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
