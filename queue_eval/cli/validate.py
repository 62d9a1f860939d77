"""queue-eval validate"""

import json
from functools import partial
from pathlib import Path

import click

from queue_eval.cli.options import case_file, dataset_options, json_option, loaded, selection
from queue_eval.cli.say import say, say_json, shell_quoted
from queue_eval.config.settings import Settings
from queue_eval.core.errors import DataError, UsageError


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
    tag: str | None,
    as_json: bool,
) -> int:
    """Check EVAL_YAML, its metrics and every case: all that can be known before a judge is asked."""
    if schema:
        say(json.dumps(Settings.model_json_schema(), indent=2))
        return 0
    if not eval_yaml:
        raise UsageError("name the file: queue-eval validate eval.yaml")
    settings = loaded(eval_yaml)
    from queue_eval.judge.metrics import faults, specs_of  # noqa: PLC0415 - imports DeepEval
    from queue_eval.producer.checks import checked  # noqa: PLC0415

    specs = specs_of([m.model_dump(mode="json") for m in settings.settings.metrics])
    cases = case_file(settings, dataset)
    chosen = selection(limit, sample, seed, tag).of(cases)
    count = sum(1 for _ in checked(chosen, partial(faults, specs)))
    if not count:
        raise DataError(f"{dataset or settings.dataset}: no cases; a run needs at least one")
    calls = count * sum(spec.judge_calls for spec in specs)
    if as_json:
        say_json(
            {
                "ok": True,
                "cases": count,
                "duplicates": cases.duplicates,
                "ignored_fields": sorted(cases.ignored),
                "judge_calls": calls,
            }
        )
        return 0
    say(f"{eval_yaml}: good; {count} cases, {len(specs)} metrics, about {calls:,} judge calls")
    if not settings.settings.gate.metrics:
        say("no bounds are set under gate.metrics: every complete run passes")
    if cases.duplicates:
        say(f"{cases.duplicates} cases are identical to others; they are kept and counted apart")
    if cases.ignored:
        say(f"fields that no test case has, left out: {', '.join(sorted(cases.ignored))}")
    say(f"next: queue-eval run {shell_quoted(Path(eval_yaml))}")
    return 0
