"""Which judge, and which secrets for it, a run's manifest may name on this machine.

A worker sends prompts and a key to the address in manifest.json. Whatever can write the store must not choose that: the
judge, the names of its secrets and the metrics by import path are those of the eval.yaml at hand, or those that the
environment allows, or the store's folder is this user's own. Where the environment has such lists, they bind the file
too, and with it where its cases come from and where their results go.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from queue_eval.core import objects
from queue_eval.core.errors import ConfigError
from queue_eval.core.location import canonical, is_remote
from queue_eval.core.settings.judge import ImportedJudge, JudgeSettings, OpenAIJudge

if TYPE_CHECKING:
    # workers need no model of eval.yaml, and building it takes as long as they do
    from queue_eval.config.load import Problem, Refusals
    from queue_eval.config.settings import Settings

JUDGES = "QUEUE_EVAL_ALLOWED_JUDGES"
SECRETS = "QUEUE_EVAL_ALLOWED_SECRETS"
PLACES = "QUEUE_EVAL_ALLOWED_PLACES"  # of cases, results and Redis; a folder allows what is in it
OF_REDIS = ("QUEUE_EVAL_REDIS_URL", "REDIS_URL")


class Typed(Protocol):
    """A metric, as a file or a manifest names it."""

    @property
    def type(self) -> str: ...


def allowing(judge: JudgeSettings, metrics: Iterable[Typed]) -> dict[str, str]:
    """Return the environment in which a process may ask this judge, and import these metrics, and no others."""
    return {JUDGES: " ".join([*_names(judge), *_classes(metrics)]), SECRETS: " ".join(_secrets(judge))}


def check_allowed(
    judge: JudgeSettings, metrics: Iterable[Typed], environment: Mapping[str, str], *, run_id: str, store: str
) -> None:
    """ConfigError unless a manifest that lies in `store` may name this judge, its secrets and these metrics here."""
    metrics = list(metrics)
    if _is_limited(environment):
        refused = _refused(judge, metrics, environment)
        if not refused:
            return
        why = f"which {JUDGES} and {SECRETS} do not allow: {', '.join(refused)}"
    elif not (_names(judge) or _classes(metrics)) or _is_own(store, run_id):
        return
    else:
        why = "and others can write that store"
    allowed = " ".join(f"{name}={shlex.quote(value)}" for name, value in allowing(judge, metrics).items())
    raise ConfigError(
        f"run {run_id!r}: {objects.MANIFEST} in {store} names where to send prompts and a key, or what to import,"
        f" {why}; if it is right, name eval.yaml too (queue-eval run eval.yaml --resume {run_id}), or: export {allowed}"
    )


def refusals(environment: Mapping[str, str], path: Path) -> "Refusals":
    """Return what finds what the environment's lists do not allow the file to name; nothing where it has none.

    In a pull request the file is its author's.
    """
    allowed = {variable: _words(environment.get(variable, "")) for variable in (JUDGES, SECRETS, PLACES)}

    def find(settings: "Settings | None", metrics: Mapping[int, Typed]) -> "Iterable[Problem]":
        if not _is_limited(environment):
            return
        classes = {index: _classes([metric]) for index, metric in metrics.items()}
        yield from _unlisted(
            ((("metrics", index), name) for index in classes for name in classes[index]), JUDGES, allowed
        )
        if settings is None:
            return
        judge, redis = settings.judge, settings.redis
        yield from _unlisted(((("judge",), name) for name in _names(judge)), JUDGES, allowed)
        yield from _unlisted(((("judge",), name) for name in _secrets(judge)), SECRETS, allowed)
        if redis.password_env:
            yield from _unlisted([(("redis", "password_env"), redis.password_env)], SECRETS, allowed)
        if redis.url and canonical(redis.url) not in _words(*(environment.get(name, "") for name in OF_REDIS)):
            yield from _unlisted([(("redis", "url"), canonical(redis.url))], PLACES, allowed)
        if not _is_store_allowed(settings.store, path.parent, allowed[PLACES]):
            yield ("store",), _not_allowed(settings.store, PLACES)
        if not _is_dataset_allowed(settings.dataset, path.parent, allowed[PLACES]):
            yield ("dataset",), _not_allowed(settings.dataset, PLACES)

    return find


def _unlisted(
    named: "Iterable[tuple[tuple[str | int, ...], str]]", variable: str, allowed: Mapping[str, frozenset[str]]
) -> "Iterable[Problem]":
    return [(place, _not_allowed(name, variable)) for place, name in named if name not in allowed[variable]]


def _not_allowed(name: str, variable: str) -> str:
    return f"{name!a} is not among what {variable} allows; add it there if it is right"


def _is_store_allowed(store: str, beside: Path, allowed: Iterable[str]) -> bool:
    """A prefix of a bucket allows what is in it."""
    if not is_remote(store):
        return _is_within(store, beside, allowed)
    return any(f"{store.rstrip('/')}/".startswith(f"{one.rstrip('/')}/") for one in allowed if is_remote(one))


def _is_dataset_allowed(dataset: str, beside: Path, allowed: Iterable[str]) -> bool:
    """Cases are read from files, whatever a name looks like, or from standard input."""
    return dataset == "-" or (not is_remote(dataset) and _is_within(dataset, beside, allowed))


def _is_within(name: str, beside: Path, allowed: Iterable[str]) -> bool:
    """A folder allows what is in it; so do the file's folder and the working directory."""
    real = (beside / name).resolve()
    folders = [beside, Path.cwd(), *(Path(one) for one in allowed if not is_remote(one))]
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def _is_limited(environment: Mapping[str, str]) -> bool:
    return JUDGES in environment or SECRETS in environment or PLACES in environment


def _refused(judge: JudgeSettings, metrics: Iterable[Typed], environment: Mapping[str, str]) -> list[str]:
    names = [*_names(judge), *_classes(metrics)]
    return [*_missing(names, environment.get(JUDGES, "")), *_missing(_secrets(judge), environment.get(SECRETS, ""))]


def _classes(metrics: Iterable[Typed]) -> list[str]:
    """Metrics by import path: what is imported runs."""
    return sorted({metric.type for metric in metrics if ":" in metric.type})


def _names(judge: JudgeSettings) -> list[str]:
    """An address, or a class with a digest of its parameters: they may hold an address."""
    match judge:
        case OpenAIJudge():
            return [canonical(judge.base_url)]
        case ImportedJudge():
            parameters = json.dumps([judge.params, judge.params_env], sort_keys=True)
            digest = hashlib.sha256(parameters.encode()).hexdigest()[:16]
            return [f"{judge.path}#{digest}" if judge.params or judge.params_env else judge.path]
    return []


def _secrets(judge: JudgeSettings) -> list[str]:
    match judge:
        case OpenAIJudge(api_key_env=str(name)):
            return [name]
        case ImportedJudge():
            return sorted({*judge.params_env.values()})
    return []


def _missing(names: list[str], allowed: str) -> list[str]:
    return [name for name in names if name not in _words(allowed)]


def _words(*texts: str) -> frozenset[str]:
    return frozenset(canonical(word) for text in texts for word in text.split())


def _is_own(store: str, run_id: str) -> bool:
    """Whether only this user, a group of this user alone, and root can write the manifest, or replace it."""
    if is_remote(store):
        return False
    if not hasattr(os, "getuid"):
        return True  # a system whose files have no such owners
    run = Path(store) / run_id
    return all(_only_we_write(place) for place in (run.parent, run, run / objects.MANIFEST))


def _only_we_write(place: Path) -> bool:
    try:
        facts = place.stat()
    except OSError:
        return False
    by_group = facts.st_mode & 0o020 and (not _is_private(facts.st_gid) or _has_acl(place))
    return facts.st_uid in (os.getuid(), 0) and not by_group and not facts.st_mode & 0o002


def _is_private(gid: int) -> bool:
    """Some systems give each user a group of the same name, with no other member."""
    import grp  # noqa: PLC0415 - not on every system
    import pwd  # noqa: PLC0415 - as above

    try:
        group = grp.getgrgid(gid)
        return group.gr_name == pwd.getpwuid(os.getuid()).pw_name and not set(group.gr_mem) - {group.gr_name}
    except KeyError:
        return False


def _has_acl(place: Path) -> bool:
    """Of an access list the group's bits are only what it grants at most."""
    try:
        return bool(os.getxattr(place, "system.posix_acl_access")) if hasattr(os, "getxattr") else True
    except OSError:
        return False
