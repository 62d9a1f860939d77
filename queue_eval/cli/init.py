"""queue-eval init"""

import json
from pathlib import Path

import click

from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json, print_lines, shell_quoted
from queue_eval.config.settings import Settings
from queue_eval.config.starter import STARTER_CASES, STARTER_YAML
from queue_eval.core.errors import StoreError, UsageError


@click.command()
@json_option
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path, as_json: bool) -> int:
    """Write a commented eval.yaml, two cases and the JSON schema for editors into FOLDER. Nothing is overwritten."""
    contents = {
        "eval.yaml": STARTER_YAML,
        "cases.jsonl": STARTER_CASES,
        "eval.schema.json": json.dumps(Settings.model_json_schema(), indent=2) + "\n",
    }
    standing = [name for name in ("eval.yaml", "cases.jsonl") if (folder / name).exists()]
    if standing:
        raise UsageError(f"{folder / standing[0]} is there already; name another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (folder / name).write_text(text, encoding="utf-8")
            if not as_json:
                print_lines(f"wrote {folder / name}")
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from None
    if as_json:
        print_json({"wrote": [str(folder / name) for name in contents]})
    else:
        print_lines(f"next: queue-eval run {shell_quoted(folder / 'eval.yaml')}")
    return 0
