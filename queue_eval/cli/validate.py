"""queue-eval validate"""

import json
from pathlib import Path

import click

from queue_eval.cli.inputs import checked_cases, dataset_options, loaded, selection
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines, shell_quoted
from queue_eval.config.settings import Settings
from queue_eval.core.errors import UsageError


@click.command()
@click.argument("eval_yaml", required=False)
@click.option("--schema", is_flag=True, help="print the JSON schema of eval.yaml and do nothing else")
@dataset_options
@json_option
def command(
    eval_yaml: str | None,
    schema: bool,
    dataset: str | None,
    limit: int | None,
    sample: int | None,
    seed: int,
    tags: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check EVAL_YAML, its metrics and every case: all that can be known before a judge is asked."""
    if schema:
        print_lines(json.dumps(Settings.model_json_schema(), indent=2))
        return 0
    if not eval_yaml:
        raise UsageError("name the file: queue-eval validate eval.yaml")
    settings = loaded(eval_yaml)
    cases, count, calls = checked_cases(settings, dataset, selection(limit, sample, seed, tags))
    if as_json:
        print_json(
            {
                "ok": True,
                "cases": count,
                "duplicates": cases.duplicates,
                "ignored_fields": cases.ignored,
                "judge_calls": calls,
            }
        )
        return 0
    print_lines(
        f"{eval_yaml}: good; {count} cases, {len(settings.settings.metrics)} metrics, about {calls:,} judge calls"
    )
    if not settings.settings.gate.metrics:
        print_lines("no bounds are set under gate.metrics: every complete run passes")
    if cases.duplicates:
        print_lines(f"{cases.duplicates} cases are identical to others; they are kept and counted apart")
    for remark in cases.remarks:
        print_lines(remark)
    print_lines(f"next: queue-eval run {shell_quoted(Path(eval_yaml))}")
    return 0
