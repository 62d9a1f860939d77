"""Which judge a manifest may name on this machine, by who can write it and by what the environment allows."""

import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from queue_eval.config.load import load
from queue_eval.core.errors import ConfigError
from queue_eval.core.settings.judge import ImportedJudge, JudgeSettings, LexicalJudge, OpenAIJudge
from queue_eval.wiring.allowed_judges import JUDGES, PLACES, SECRETS, allowing, check_allowed, refusals

HTTP = OpenAIJudge(type="openai", model="m", base_url="https://judge.example/v1", api_key_env="KEY")
CLASS = ImportedJudge(type="import", path="models:Mine", params={"base_url": "http://a"}, params_env={"key": "KEY"})


def is_allowed(judge: JudgeSettings, environment: dict[str, str], store: str) -> bool:
    try:
        check_allowed(judge, (), environment, run_id="r1", store=store)
    except ConfigError:
        return False
    return True


@pytest.fixture
def own(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "r1"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    for place in (tmp_path / "runs", run):
        place.chmod(0o755)
    return run


@pytest.mark.parametrize(
    ("open_to_others", "allowed"),
    [("", True), ("runs", False), ("runs/r1", False), ("runs/r1/manifest.json", False)],
)
def test_a_folder_that_only_this_user_writes_is_trusted(own: Path, open_to_others: str, allowed: bool) -> None:
    if open_to_others:
        (own.parents[1] / open_to_others).chmod(0o777)
    assert is_allowed(HTTP, {}, str(own.parent)) is allowed


def test_a_manifest_of_another_user_is_not(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_allowed(HTTP, {}, str(own.parent))
    if os.getuid() == 0:
        os.chown(own / "manifest.json", 1, -1)  # as only root can
    else:
        another = os.getuid() + 1
        monkeypatch.setattr("os.getuid", lambda: another)
    assert not is_allowed(HTTP, {}, str(own.parent))


@pytest.mark.parametrize(
    ("is_private", "has_acl", "allowed"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_group_that_can_write_is_this_users_alone(
    own: Path, monkeypatch: pytest.MonkeyPatch, is_private: bool, has_acl: bool, allowed: bool
) -> None:
    """Some systems give each user a group of the same name. With an access list the group's bits mean little."""
    (own / "manifest.json").chmod(0o664)
    name = pwd.getpwuid(os.getuid()).pw_name
    members = [name] if is_private else [name, "another"]
    monkeypatch.setattr("grp.getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))
    if has_acl:
        monkeypatch.setattr("os.getxattr", lambda _place, _name: b"\x02\x00\x00\x00")
    assert is_allowed(HTTP, {}, str(own.parent)) is allowed


def test_a_metric_by_import_path_is_allowed_as_a_judge_is(own: Path) -> None:
    metrics = [SimpleNamespace(type="AnswerRelevancyMetric"), SimpleNamespace(type="mine:Metric")]
    check_allowed(HTTP, metrics, {}, run_id="r1", store=str(own.parent))
    check_allowed(HTTP, metrics, allowing(HTTP, metrics), run_id="r1", store="s3://b/r")
    for environment in ({}, allowing(HTTP, ())):
        with pytest.raises(ConfigError, match="mine:Metric"):
            check_allowed(HTTP, metrics, environment, run_id="r1", store="s3://b/r")


@pytest.mark.parametrize("judge", [HTTP, CLASS])
def test_a_bucket_is_trusted_with_nothing(judge: JudgeSettings) -> None:
    assert not is_allowed(judge, {}, "s3://bucket/runs")
    assert is_allowed(judge, allowing(judge, ()), "s3://bucket/runs")
    assert is_allowed(LexicalJudge(type="lexical"), {}, "s3://bucket/runs")


@pytest.mark.parametrize(
    ("judge", "changed"),
    [
        (HTTP, {"base_url": "https://judge.example.evil/v1"}),
        (HTTP, {"base_url": "https://judge.example/v1 http://elsewhere"}),
        (HTTP, {"api_key_env": "OTHER"}),
        (CLASS, {"path": "models:Other"}),
        (CLASS, {"params": {"base_url": "http://b"}}),
        (CLASS, {"params": {}}),
        (CLASS, {"params_env": {"key": "OTHER"}}),
        (CLASS, {"params_env": {"base_url": "KEY"}}),
    ],
)
def test_what_the_environment_allows_is_that_judge_alone(
    own: Path, judge: JudgeSettings, changed: dict[str, Any]
) -> None:
    """In a folder of one's own too: the lists are the operator's word."""
    assert is_allowed(judge, allowing(judge, ()), str(own.parent))
    other = type(judge).model_construct(**{**dict(judge), **changed})
    assert not is_allowed(other, allowing(judge, ()), str(own.parent))


def test_addresses_are_compared_in_one_spelling_and_one_list_alone_allows_nothing_of_the_other() -> None:
    allowed = {JUDGES: "http://first HTTPS://Judge.Example:443/v1/", SECRETS: "OTHER KEY"}
    assert is_allowed(HTTP, allowed, "s3://bucket/runs")
    assert not is_allowed(HTTP, {JUDGES: allowed[JUDGES]}, "s3://bucket/runs")
    assert not is_allowed(HTTP, {SECRETS: allowed[SECRETS]}, "s3://bucket/runs")


FILE = """\
dataset: {dataset}
store: {store}
metrics: [{{type: {metric}}}]
judge: {judge}
redis: {redis}
"""
ALLOWED = {
    "JUDGE": "{type: openai, model: m, base_url: 'https://judge.example/v1', api_key_env: KEY}",
    JUDGES: "https://judge.example/v1",
    SECRETS: "KEY",
    PLACES: "s3://results/pr /data/sets redis://shared:6379/0",
}


def refused(tmp_path: Path, **parts: str) -> str:
    """Return what is reported of the file; empty where it is taken."""
    plain = {"dataset": "c.jsonl", "store": "runs", "metric": "BiasMetric", "judge": ALLOWED["JUDGE"], "redis": "{}"}
    path = tmp_path / "eval.yaml"
    path.write_text(FILE.format(**plain | parts))
    environment = ALLOWED | {"KEY": "k", "OTHER": "o", "QUEUE_EVAL_REDIS_URL": "redis://of-the-job:6379/0"}
    imported: list[str] = []
    try:
        load(
            path,
            environment=environment,
            refusals=refusals(environment, path),
            check_metrics=lambda metrics: [imported.append(m.type) or ((), "imported") for m in metrics.values()],  # type: ignore[func-returns-value]
        )
    except ConfigError as error:
        if imported:
            return ""
        return str(error)
    raise AssertionError("its metrics were not checked")


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("judge", "{type: openai, model: m, base_url: 'https://evil.example/v1', api_key_env: KEY}", "evil.example"),
        ("judge", "{type: openai, model: m, base_url: 'https://judge.example/v1', api_key_env: OTHER}", "OTHER"),
        ("judge", "{type: import, path: 'evil:Model'}", "evil:Model"),
        ("metric", "'evil:Metric'", "evil:Metric"),
        ("redis", "{url: 'redis://evil.example/0'}", "evil.example"),
        ("redis", "{url: 'redis://shared:6379/0', password_env: OTHER}", "OTHER"),
        ("redis", "{password_env: OTHER}", "OTHER"),
        ("store", "s3://evil/x", "s3://evil/x"),
        ("store", "s3://results/private", "private"),
        ("store", "/etc", "/etc"),
        ("dataset", "/proc/self/environ", "environ"),
        ("dataset", "s3://results/pr/x.jsonl", "x.jsonl"),
        ("dataset", "redis://shared:6379/0/x.jsonl", "x.jsonl"),
        ("dataset", "../../../../../../../etc/passwd", "passwd"),
        # one mistake elsewhere does not let the rest be imported
        ("metric", "'evil:Metric', threshold: 7", ""),
    ],
)
def test_what_the_lists_do_not_allow_is_refused_before_anything_of_it_is_used(
    tmp_path: Path, part: str, value: str, named: str
) -> None:
    printed = refused(tmp_path, **{part: value})
    assert "eval.yaml:" in printed
    assert named in printed


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("store", "s3://results/pr"),
        ("store", "s3://results/pr/42"),
        ("dataset", "/data/sets/a.jsonl"),
        ("dataset", "'-'"),
        ("redis", "{url: 'redis://shared:6379/0'}"),
        ("redis", "{url: 'redis://of-the-job:6379/0'}"),
        ("judge", "{type: openai, model: m, base_url: 'https://Judge.example:443/v1/', api_key_env: KEY}"),
        ("judge", "{type: lexical}"),
    ],
)
def test_what_the_lists_allow_is_taken(tmp_path: Path, part: str, value: str) -> None:
    assert refused(tmp_path, **{part: value}) == ""


def test_a_link_out_of_the_files_folder_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "inside.jsonl").symlink_to("/etc/passwd")
    assert "inside.jsonl" in refused(tmp_path, dataset="inside.jsonl")


def test_without_lists_the_file_is_its_users(tmp_path: Path) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(FILE.format(dataset="/data/c.jsonl", store="s3://any/where", metric="BiasMetric", judge="{type: lexical}", redis="{url: 'redis://any/0'}"))  # fmt: skip
    assert load(path, environment={}, refusals=refusals({}, path)).store == "s3://any/where"
