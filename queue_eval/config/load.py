"""Reads eval.yaml: every error at once, each with its line, its place and the remedy."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from queue_eval.config.settings import Settings
from queue_eval.core.errors import ConfigError, NoInputError
from queue_eval.core.settings.judge import ImportedJudge, OpenAIJudge
from queue_eval.core.settings.metric import MetricSettings, is_own
from queue_eval.core.settings.section import Section

MAX_YAML_BYTES = 1_000_000

Place = tuple[str | int, ...]
Problem = tuple[Place, str]
MetricCheck = Callable[[Mapping[int, MetricSettings]], Iterable[Problem]]
Check = Callable[[Settings], Iterable[Problem]]
Refusals = Callable[[Settings | None, Mapping[int, MetricSettings]], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    settings: Settings
    path: Path

    def with_weight(self, weight: float) -> "LoadedSettings":
        """The same with another priority."""
        limits = self.settings.limits.model_copy(update={"priority": weight})
        return LoadedSettings(self.settings.model_copy(update={"limits": limits}), self.path)

    @property
    def dataset(self) -> str:
        return self._beside(self.settings.dataset)

    @property
    def store(self) -> str:
        return self._beside(self.settings.store)

    def _beside(self, name: str) -> str:
        """Relative to the file; standard input and URLs stay what they are."""
        return name if name == "-" or "://" in name else str(self.path.parent / name)


def load(
    path: Path,
    *,
    environment: Mapping[str, str] | None,
    refusals: Refusals = lambda _settings, _metrics: (),
    check_metrics: MetricCheck = lambda _: (),
    checks: Iterable[Check] = (),
) -> LoadedSettings:
    """ConfigError with one line per mistake.

    Without an `environment` its variables are not checked: the run goes on elsewhere.

    `refusals`: what the file may not name here, before any of it is imported. The checks find what needs more than the
    file, such as a metric's parameters.
    """
    body, lines = _parsed(_text(path), path)
    problems: list[Problem] = list(_unwritable(body))
    if problems:
        raise ConfigError(_listed(path, problems, lines))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(body)
        metrics = dict(enumerate(settings.metrics))
    except ValidationError as error:
        problems += [(tuple(_place(e)), _message(e)) for e in error.errors(include_url=False) if not _echo(e)]
        # the metrics that can be read are checked all the same: all mistakes are reported together
        metrics = _readable_metrics(body)
    if refused := list(refusals(settings, metrics)):
        raise ConfigError(_listed(path, problems + refused, lines))
    problems += check_metrics(metrics)
    if settings:
        for check in (_name_problems, *checks):
            problems += check(settings)
        if environment is not None:
            problems += _environment_problems(settings, environment)
    if problems or settings is None:
        raise ConfigError(_listed(path, problems, lines))
    return LoadedSettings(settings, path)


def _unwritable(value: Any, place: tuple[str | int, ...] = ()) -> Iterable[Problem]:
    """Find what YAML can hold and neither JSON nor a file's name can."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _unwritable(key, place)
            yield from _unwritable(one, (*place, str(key)))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _unwritable(one, (*place, index))
    elif isinstance(value, bytes):
        yield place, "is binary; write text"
    elif isinstance(value, str) and ("\0" in value or value.encode(errors="replace").decode() != value):
        yield place, f"{value[:60]!a} holds a character that no text has; take it out"


def _echo(error: ErrorDetails) -> bool:
    """Pydantic counts a list short of the items whose own mistakes it has reported already."""
    return error["type"] == "too_short" and bool(error["input"])


def _readable_metrics(body: Any) -> dict[int, MetricSettings]:
    raw = body.get("metrics") if isinstance(body, dict) else None
    found = {}
    for index, metric in enumerate(raw if isinstance(raw, list) else ()):
        with suppress(ValidationError):
            found[index] = MetricSettings.model_validate(metric)
    return found


def _name_problems(settings: Settings) -> Iterable[Problem]:
    names = [metric.reported_name for metric in settings.metrics]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("metrics", index), f"{name!r} is the name of an earlier metric too; give it a name of its own"
    for name in settings.gate.metrics:
        if name not in names:
            yield (
                ("gate", "metrics", name),
                f"no metric is reported by this name; the file's metrics are {', '.join(names)}",
            )
    own = {metric.reported_name for metric in settings.metrics if is_own(metric.type)}
    for name, rule in settings.gate.metrics.items():
        if rule.min_mean is not None and name in names and name not in own and not 0 <= rule.min_mean <= 1:
            yield (
                ("gate", "metrics", name, "min_mean"),
                f"DeepEval's metrics score from 0 to 1; write a mean between them, not {rule.min_mean:g}",
            )


def must_be_readable(path: Path) -> None:
    """NoInputError or ConfigError for a file that is not there or is no text: before a command imports what takes a
    second.
    """
    _text(path)


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


def _parsed(text: str, path: Path) -> tuple[Any, dict[Place, int]]:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if _has_alias(text):
            raise ConfigError(f"{path}: YAML anchors and aliases are not supported; write the values out")
        _refuse_repeated_keys(tree, path)
        return yaml.safe_load(text), _line_numbers(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    except (LookupError, AttributeError, TypeError) as error:
        # PyYAML's constructors expect that a value suits the tag that is written before it, as `!!int ""` does not
        raise ConfigError(f"{path}: a value does not suit its YAML tag ({error}); leave the !! tags out") from None


def _has_alias(text: str) -> bool:
    """An alias can make a small file unfold without end."""
    return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))


def _refuse_repeated_keys(tree: yaml.Node | None, path: Path) -> None:
    """YAML's reader takes the last of two, as a merge may leave them: no gate may lose its bounds unseen."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        if isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(getattr(key, "value", "")), key.start_mark.line + 1
                if name in first:
                    raise ConfigError(
                        f"{path}:{line}: {name!r} stands in line {first[name]} already; leave one of them"
                    )
                first[name] = line
                todo.append(value)


def _line_numbers(tree: yaml.Node | None) -> dict[Place, int]:
    lines: dict[Place, int] = {}
    todo: list[tuple[Place, yaml.Node | None]] = [((), tree)]
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
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {_shown(value)}"


def _shown(value: Any) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"


def _suggestion(name: str) -> str:
    known = [field for section in _sections(Section) for field in section.model_fields]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; remove it"


def _sections(parent: type[Section]) -> Iterable[type[Section]]:
    for section in parent.__subclasses__():
        yield section
        yield from _sections(section)


def _environment_problems(settings: Settings, environment: Mapping[str, str]) -> Iterable[Problem]:
    judge = settings.judge
    if isinstance(judge, OpenAIJudge) and judge.api_key_env:
        place, name = ("judge", "api_key_env"), judge.api_key_env
        if not environment.get(name):
            yield (
                place,
                (
                    f"the environment variable {name} is not set; export it, or remove api_key_env for a judge without"
                    " a key"
                ),
            )
        elif not environment[name].strip().isprintable():
            yield (
                place,
                f"the environment variable {name} holds a line break or a control character; export the key alone",
            )
    if isinstance(judge, ImportedJudge):
        for argument, name in judge.params_env.items():
            if name not in environment:
                yield ("judge", "params_env", argument), f"the environment variable {name} is not set; export it"
    password_name = settings.redis.password_env
    if password_name and not environment.get(password_name):
        yield ("redis", "password_env"), f"the environment variable {password_name} is not set; export it"


def _listed(path: Path, problems: list[Problem], lines: dict[Place, int]) -> str:
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
