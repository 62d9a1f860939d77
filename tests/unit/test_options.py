"""What options take, and what they were called."""

from typing import Any

import click
import pytest

from queue_eval.cli.commands import RENAMED
from queue_eval.cli.main import COMMANDS, group
from queue_eval.cli.options import SECONDS


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("1.5", 1.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("0.5m", 30)]
)
def test_a_time_is_plain_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert SECONDS.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1d", "s", "1 0", "5mm", "1e3", "9" * 30])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time"):
        SECONDS.convert(text, None, None)


def resolved(*words: str) -> list[str]:
    _, _, rest = group.resolve_command(click.Context(group), list(words))
    return rest


@pytest.mark.parametrize("old", RENAMED)
def test_an_option_is_read_by_its_old_name_with_a_warning(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = RENAMED[old]
    assert resolved("finalize", "r1", old, "5") == ["r1", new, "5"]
    assert resolved("finalize", "r1", f"{old}=5") == ["r1", f"{new}=5"]
    assert capsys.readouterr().err.count(f"{old} is called {new} now") == 2
    assert resolved("finalize", "--", old) == ["--", old]
    assert not capsys.readouterr().err


def options(command: click.Command) -> set[str]:
    below: list[Any] = [command.get_command(click.Context(command), n) for n in command.list_commands(click.Context(command))] if isinstance(command, click.Group) else []  # fmt: skip
    return {name for param in command.params for name in param.opts}.union(*map(options, below))


def test_every_present_name_is_an_option() -> None:
    known = set().union(*(options(group.get_command(click.Context(group), name) or group) for name in COMMANDS))
    assert set(RENAMED.values()) <= known
    assert not known & RENAMED.keys()
