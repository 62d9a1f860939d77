"""Writes the pages that the code already knows: `python -m testkit.pages`. A test fails when they are out of date."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from queue_eval.cli.main import COMMANDS, group
from queue_eval.config.kubernetes_settings import KubernetesSettings
from queue_eval.config.redis_settings import RedisSettings
from queue_eval.config.settings import DatasetBounds, Settings
from queue_eval.core.report import Report
from queue_eval.core.settings.gate import GateSettings, MetricRuleSettings
from queue_eval.core.settings.judge import ImportedJudge, LexicalJudge, OpenAIJudge, PriceSettings
from queue_eval.core.settings.limits import LimitSettings
from queue_eval.core.settings.metric import MetricSettings
from queue_eval.core.settings.retry import RetrySettings
from queue_eval.core.settings.workers import WorkerSettings

HERE = Path(__file__).parents[1] / "docs"

INTRODUCTION = """\
# Configuration

One YAML file. `queue-eval validate eval.yaml` checks it, its metrics and every case, and prints all mistakes together, each with its line.
`queue-eval init` writes a commented starter together with the JSON schema that editors use. `queue-eval validate --schema`
prints that schema. This page is made from the code by `python -m testkit.pages`.

Secrets are named by their environment variable (`api_key_env`, `password_env`) and written nowhere. `QUEUE_EVAL_REDIS_URL` (or `REDIS_URL`) and
`QUEUE_EVAL_REDIS_PASSWORD` serve where neither an option nor the file names a Redis or a password.

`QUEUE_EVAL_ALLOWED_JUDGES` (addresses, or classes as a refusal spells them) and `QUEUE_EVAL_ALLOWED_SECRETS` (names of
variables), each separated by spaces, are what a run's manifest may name on this machine. Without either, the manifest
is followed only in a folder that no other user can write. One alone allows nothing of the other. `run`, and the Jobs
of `k8s`, set both for their workers from the file.

Where one of them is set they bind an eval.yaml too, with `QUEUE_EVAL_ALLOWED_PLACES` for its `dataset`, `store` and
`redis.url`. A folder or an s3:// prefix in that list allows what is in it. The file's own folder, the working
directory and the Redis of `QUEUE_EVAL_REDIS_URL` need no entry.
"""

COMMANDS_INTRODUCTION = """\
# Commands

What `queue-eval COMMAND --help` prints. This page is made from the code by `python -m testkit.pages`.
"""

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("at the top", Settings),
    ("metrics[]: further keys are parameters of the metric's constructor", MetricSettings),
    ("judge, type: openai", OpenAIJudge),
    ("judge, type: import", ImportedJudge),
    ("judge, type: lexical", LexicalJudge),
    ("judge.price", PriceSettings),
    ("limits", LimitSettings),
    ("retry", RetrySettings),
    ("workers", WorkerSettings),
    ("redis", RedisSettings),
    ("kubernetes", KubernetesSettings),
    ("gate", GateSettings),
    ("gate.metrics.NAME", MetricRuleSettings),
    ("dataset_bounds", DatasetBounds),
)


def configuration() -> str:
    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        rows = [f"| `{name}` | {_default(field)} | {_meaning(field)} |" for name, field in model.model_fields.items()]
        parts.append("\n".join([f"## {title}", "", "| setting | default | means |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "below"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def report_schema() -> str:
    return json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n"


def commands() -> str:
    parts = [COMMANDS_INTRODUCTION]
    context = click.Context(group, info_name="queue-eval", max_content_width=110)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        parts += _of_command(command, click.Context(command, info_name=name, parent=context), depth=2)
    return "\n".join(parts)


def _of_command(command: click.Command, context: click.Context, *, depth: int) -> Iterator[str]:
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"{'#' * depth} {context.command_path}\n\n```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _of_command(below, click.Context(below, info_name=name, parent=context), depth=depth + 1)


PAGES = {
    "reference/configuration.md": configuration,
    "reference/commands.md": commands,
    "reference/report.schema.json": report_schema,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
