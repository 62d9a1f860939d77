"""What `submit` and `render` make of eval.yaml and its cases."""

import gzip
import os
import re
from pathlib import Path

from queue_eval.cli.inputs import checked_cases, loaded
from queue_eval.config.commit import commit_sha
from queue_eval.core.errors import NoInputError, UsageError
from queue_eval.core.naming import checked_run_id
from queue_eval.kubernetes.plan import INPUT_MOUNT, RunPlan, plan_of

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".gz")


def planned(eval_yaml: str, run_id: str, dataset: str | None, *, commit: str | None = None) -> RunPlan:
    """Find everything that can be found wrong without a cluster, before anything is created.

    `commit`: None finds it out, "" is none.
    """
    found = loaded(eval_yaml, here=False)
    files = {"eval.yaml": found.path.read_bytes()}
    in_the_pods = found.settings.kubernetes.dataset if found.settings.kubernetes else None
    if not in_the_pods or dataset:
        name, data = _packed(dataset or found.dataset)
        checked_cases(found, dataset)
        files[name], in_the_pods = data, f"{INPUT_MOUNT}/{name}"
    return plan_of(
        found,
        checked_run_id(run_id),
        dataset=in_the_pods,
        commit_sha=commit_sha(os.environ, found.path.parent) if commit is None else commit or None,
        input_files=files,
    )


def _packed(name: str) -> tuple[str, bytes]:
    """The case file as it travels: gzipped, the same bytes for the same content."""
    if name == "-":
        raise UsageError("standard input cannot go into a cluster; name a file with --dataset")
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror or error}; name the case file with --dataset") from None
    # the name is a key of the ConfigMap; its endings name the file's format
    endings = [ending for ending in path.suffixes[-2:] if ending.lower() in _ENDINGS]
    name = path.name if _KEY.fullmatch(path.name) else "cases" + "".join(endings)
    if path.suffix == ".gz":
        return name, data
    return f"{name}.gz", gzip.compress(data, compresslevel=9, mtime=0)
