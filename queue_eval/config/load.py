"""Reads eval.yaml: every error at once, each with its line, its place and the remedy."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from queue_eval.config.settings import Settings
from queue_eval.core.errors import ConfigError, NoInputError

MAX_YAML_BYTES = 1_000_000

Check = Callable[[Settings], Iterable[tuple[tuple[str | int, ...], str]]]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    settings: Settings
    path: Path

    @property
    def dataset(self) -> str:
        return self._beside(self.settings.dataset)

    @property
    def store(self) -> str:
        return self._beside(self.settings.store)

    def _beside(self, name: str) -> str:
        """Relative to the file; standard input and URLs stay what they are."""
        return name if name == "-" or "://" in name else str(self.path.parent / name)


def load(path: Path, *, environment: Mapping[str, str], checks: Iterable[Check] = ()) -> LoadedSettings:
    """ConfigError with one line per mistake. `checks` find what needs more than the file, such as a metric's parameters."""
    text = _text(path)
    body, lines = _parsed(text, path)
    try:
        settings = Settings.model_validate(body)
    except ValidationError as error:
        problems = [(tuple(_place(e)), _message(e)) for e in error.errors(include_url=False)]
        raise ConfigError(_listed(path, problems, lines)) from None
    problems = [*_environment_problems(settings, environment)]
    for check in checks:
        problems += check(settings)
    if problems:
        raise ConfigError(_listed(path, problems, lines))
    return LoadedSettings(settings, path)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NoInputError(f"{path}: no such file; `queue-eval init` writes a starter") from None
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{path}: {len(data):,} bytes; a configuration of more than {MAX_YAML_BYTES:,} is surely another file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _parsed(text: str, path: Path) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if _has_alias(text):
            raise ConfigError(f"{path}: YAML anchors and aliases are not supported; write the values out")
        return yaml.safe_load(text), _line_numbers(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None


def _has_alias(text: str) -> bool:
    """An alias can make a small file unfold without end."""
    return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))


def _line_numbers(tree: yaml.Node | None) -> dict[tuple[str | int, ...], int]:
    lines: dict[tuple[str | int, ...], int] = {}
    todo: list[tuple[tuple[str | int, ...], yaml.Node | None]] = [((), tree)]
    while todo:
        place, node = todo.pop()
        if node is None:
            continue
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = (*place, str(getattr(key, "value", "")))
                lines[name] = key.start_mark.line + 1
                todo.append((name, value))
        elif isinstance(node, yaml.SequenceNode):
            todo += [((*place, index), value) for index, value in enumerate(node.value)]
    return lines


def _place(error: ErrorDetails) -> list[str | int]:
    # pydantic puts the judge's type between "judge" and its field
    place = list(error["loc"])
    return (
        place[:1] + place[2:]
        if place[:1] == ["judge"] and len(place) > 1 and place[1] in ("openai", "import", "lexical")
        else place
    )


def _message(error: ErrorDetails) -> str:
    kind, value, context = error["type"], error.get("input"), error.get("ctx") or {}
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is no setting{_suggestion(str(error['loc'][-1]))}"
    if kind == "union_tag_not_found":
        return "needs a type: openai, import or lexical"
    if kind == "union_tag_invalid":
        return f"type {context.get('tag')!r} is unknown; use openai, import or lexical"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {str(value)[:60]!r}"


def _suggestion(name: str) -> str:
    known = [f for model in (Settings, *_sections()) for f in model.model_fields]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; remove it"


def _sections() -> Iterable[Any]:
    from queue_eval.config import settings as module  # noqa: PLC0415 - only on the way to an error message

    return [value for value in vars(module).values() if isinstance(value, type) and hasattr(value, "model_fields")]


def _environment_problems(
    settings: Settings, environment: Mapping[str, str]
) -> Iterable[tuple[tuple[str | int, ...], str]]:
    key_name = getattr(settings.judge, "api_key_env", None)
    if key_name and not environment.get(key_name):
        yield (
            ("judge", "api_key_env"),
            f"the environment variable {key_name} is not set; export it, or remove api_key_env for a judge without a key",
        )
    password_name = settings.redis.password_env
    if password_name and not environment.get(password_name):
        yield ("redis", "password_env"), f"the environment variable {password_name} is not set; export it"


def _listed(
    path: Path, problems: list[tuple[tuple[str | int, ...], str]], lines: dict[tuple[str | int, ...], int]
) -> str:
    rows = []
    for place, message in problems:
        known = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in lines or n == 0)
        line = lines.get(known, 1)
        rows.append((line, f"{path}:{line}: {_dotted(place)}{message}"))
    return "\n".join(text for _, text in sorted(rows))


def _dotted(place: tuple[str | int, ...]) -> str:
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return f"{name}: " if name else ""
