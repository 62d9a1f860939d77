"""eval.yaml: every mistake at once, each with its line, its place and the remedy."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_eval.config.commit import commit_sha
from queue_eval.config.load import load
from queue_eval.config.settings import Settings
from queue_eval.config.starter import STARTER_YAML
from queue_eval.core.errors import ConfigError, NoInputError, QueueEvalError
from queue_eval.wiring.judging import judge_problems, metric_problems
from queue_eval.wiring.stores import earlier_busy_s

GOOD = """\
dataset: cases.jsonl                     # relative to this file
metrics:
  - {type: AnswerRelevancyMetric, threshold: 0.7}
  - {type: FaithfulnessMetric, threshold: 0.7}
  - {type: GEval, name: Correctness, criteria: "Is the answer right, given the expected one?", evaluation_params: [input, actual_output, expected_output], threshold: 0.5}
judge: {type: openai, model: judge-small, base_url: "http://127.0.0.1:8900/v1", api_key_env: JUDGE_API_KEY}
limits: {requests_per_minute: 600, tokens_per_minute: 400000, window: sliding, window_s: 60}
store: runs
gate: {mode: block, metrics: {Faithfulness: {min_mean: 0.7, min_pass_rate: 0.8}}}
"""
JUDGE = next(line for line in GOOD.splitlines() if line.startswith("judge:"))
KEY = {"JUDGE_API_KEY": "sk-canary"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "eval.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(
            written(tmp_path, text),
            environment=environment or KEY,
            check_metrics=metric_problems,
            checks=(judge_problems,),
        )
    return str(error.value).replace(f"{tmp_path}/", "").splitlines()


def test_the_words_that_people_rely_on(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD), environment=KEY, check_metrics=metric_problems, checks=(judge_problems,))
    assert [m.reported_name for m in loaded.settings.metrics] == ["AnswerRelevancy", "Faithfulness", "Correctness"]
    assert loaded.dataset == str(tmp_path / "cases.jsonl")
    assert loaded.store == str(tmp_path / "runs")
    assert loaded.settings.limits.requests_per_minute == 600
    assert loaded.settings.gate.metrics["Faithfulness"].min_pass_rate == 0.8


def test_the_starter_is_valid(tmp_path: Path) -> None:
    load(written(tmp_path, STARTER_YAML), environment={}, check_metrics=metric_problems)


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
dataset: c.jsonl
metrics:
  - {type: FaithfulnessMetric, threshold: 7}
judge: {type: openai, base_url: "ftp://x"}
limit: {requests_per_minute: 5}
retry:
  call_attempts: none
"""
    lines = refused(tmp_path, text)
    assert [line.split(": ")[0] for line in lines] == [
        "eval.yaml:3",
        "eval.yaml:4",
        "eval.yaml:4",
        "eval.yaml:5",
        "eval.yaml:7",
    ]
    assert (
        "metrics[0].threshold: DeepEval's metrics score from 0 to 1; write a threshold between them, not 7" in lines[0]
    )
    assert any("judge.model: is missing" in line for line in lines)
    assert "limit: is no setting; did you mean limits?" in lines[3]
    assert "retry.call_attempts" in lines[4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("FaithfulnessMetric", "FaithMetric"), "eval.yaml:4: metrics[1]: 'FaithMetric' is no DeepEval metric"),
        (("FaithfulnessMetric", "FaithfullnessMetric"), "is no DeepEval metric; did you mean FaithfulnessMetric?"),
        (("FaithfulnessMetric", "faithfulness"), "is no DeepEval metric; did you mean FaithfulnessMetric?"),
        (("threshold: 0.5}", "threshold: 0.5, rubrik: 3}"), "GEval has no parameter rubrik; it takes"),
        (("[input, actual_output, expected_output]", "[input, colour]"), "'colour' is none of input, actual_output"),
        (("FaithfulnessMetric", "my_metrics:Mine"), "my_metrics:Mine cannot be imported"),
        (("FaithfulnessMetric", "json:JSONDecoder"), "json:JSONDecoder is no BaseMetric or BaseConversationalMetric"),
        (("type: openai", "type: opanai"), "judge: type 'opanai' is unknown; use openai, import or lexical"),
        (
            ("{Faithfulness:", "{Faith:"),
            "gate.metrics.Faith: no metric is reported by this name; the file's metrics are AnswerRelevancy, Faithfulness, Correctness",
        ),
        (
            ("http://127.0.0.1:8900", "http://127.0.0.1:99999"),
            "judge.base_url: Port out of range 0-65535; write http(s)://HOST",
        ),
        (("http://127.0.0.1:8900", "http://:80"), "judge.base_url: there is no host"),
        (("http://127.0.0.1", "http://me:hunter2@127.0.0.1"), "judge.base_url: credentials do not belong into the URL"),
        (
            ("api_key_env: JUDGE_API_KEY}", "query: {api-key: x}}"),
            "judge.query: api-key: a secret does not belong into the file",
        ),
        (
            (JUDGE, "judge: {type: import, path: 'a:B', params: {api_key: x}}"),
            "judge.params: api_key: a secret does not belong into the file; name its environment variable under params_env",
        ),
        (
            ("name: Correctness", "name: Faithfulness"),
            "metrics[2]: 'Faithfulness' is the name of an earlier metric too",
        ),
    ],
)
def test_what_only_deepeval_or_the_whole_file_can_show(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert any(message in line for line in refused(tmp_path, GOOD.replace(*change)))


def test_a_secret_is_named_by_its_variable_which_must_be_set(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, GOOD, OTHER="x")
    assert (
        line
        == "eval.yaml:6: judge.api_key_env: the environment variable JUDGE_API_KEY is not set; export it, or remove api_key_env for a judge without a key"
    )


def test_a_key_that_no_header_can_hold_is_refused(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, GOOD, JUDGE_API_KEY="abc\ndef")
    assert "holds a line break" in line
    load(written(tmp_path, GOOD), environment={"JUDGE_API_KEY": "abc\n"}, check_metrics=metric_problems)


@pytest.mark.parametrize(
    "url", ["redis://user:hunter2@host", "redis://host?password=hunter2", "redis://host/0?db=0&pass%77ord=hunter2"]
)
def test_a_password_in_the_file_is_refused(tmp_path: Path, url: str) -> None:
    (line,) = refused(tmp_path, GOOD + f"redis: {{url: '{url}'}}\n")
    assert "redis.password_env" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "judge",
    [
        "{type: openai, model: m, base_url: 'http://h/v1?api-key=hunter2'}",
        "{type: openai, model: m, base_url: 'http://u:hunter2@h/v1'}",
        "{type: openai, model: m, query: {sig: hunter2}}",
        "{type: openai, model: m, query: {Authorization: hunter2}}",
        "{type: import, path: 'm:C', params: {api_key: hunter2}}",
        "{type: import, path: 'm:C', params: {client: {options: [{passwd: hunter2}]}}}",
    ],
)
def test_a_secret_of_the_judge_in_the_file_is_refused(tmp_path: Path, judge: str) -> None:
    (line,) = refused(tmp_path, GOOD.replace(JUDGE, f"judge: {judge}"))
    assert "belong into the" in line
    assert "hunter2" not in line


def test_a_scale_of_ones_own_has_thresholds_and_means_beyond_one(tmp_path: Path) -> None:
    own = "tests.unit.test_foreign_metrics:OfTen"
    text = f"dataset: c.jsonl\nmetrics: [{{type: '{own}', threshold: 7}}]\njudge: {{type: lexical}}\ngate: {{metrics: {{OfTen: {{min_mean: 6.5}}}}}}\n"
    loaded = load(written(tmp_path, text), environment={}, check_metrics=metric_problems)
    assert loaded.settings.specs[0].threshold == 7
    assert loaded.settings.gate.metrics["OfTen"].min_mean == 6.5
    (line,) = refused(
        tmp_path,
        text.replace(own, "AnswerRelevancyMetric")
        .replace("OfTen", "AnswerRelevancy")
        .replace("threshold: 7", "threshold: 0.7"),
    )
    assert "eval.yaml:4: gate.metrics.AnswerRelevancy.min_mean: DeepEval's metrics score from 0 to 1" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: [", "not YAML"),
        ("just text", "input should be"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("gate: {min_coverage: 1}\ngate: {}", "2: 'gate' stands in line 1 already; leave one of them"),
        ("x: \t- y", "not YAML"),
        ("", "input should be"),
        ("? [a, b]\n: c", "not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    assert any(message in line for line in refused(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="queue-eval init"):
        load(tmp_path / "none.yaml", environment={})
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "b.yaml", environment={})


@given(st.binary(max_size=200))
def test_any_bytes_give_settings_or_clear_lines(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "eval.yaml"
    path.write_bytes(data)
    with pytest.raises(QueueEvalError):
        load(path, environment={})


TAGS = st.sampled_from(["int", "float", "bool", "timestamp", "binary", "null", "seq", "map", "set", "omap", "pairs", "str", "python/name:os.system"])  # fmt: skip
SCALARS = st.sampled_from(["", "''", "x", ".inf", ".nan", "-1", "1e999", "2001-99-99", "[]", "{}", "[a, b]", "{a: b}", "~"])  # fmt: skip
FIELDS = st.sampled_from(["dataset", "metrics", "judge", "limits.per_minute.requests", "retry.call_timeout_s", "workers.concurrency", "workers.max_mb_in_flight", "workers.straggler_least_s", "workers.lease_s", "gate", "labels.a", "redis.url", "kubernetes.deadline_s"])  # fmt: skip


@given(st.dictionaries(FIELDS, st.tuples(st.none() | TAGS, SCALARS), min_size=1, max_size=4))
def test_any_values_give_settings_or_clear_lines(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, tuple[str | None, str]]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    sections: dict[str, list[str]] = {}
    for name, (tag, scalar) in values.items():
        section, *keys = name.split(".")
        value = f"!!{tag} {scalar}" if tag else scalar
        for key in reversed(keys):
            value = f"{{{key}: {value}}}"
        sections.setdefault(section, []).append(value)
    text = "".join(f"{section}: {value}\n" for section, (value, *_) in sections.items())
    (folder / "eval.yaml").write_text(text)
    try:
        load(folder / "eval.yaml", environment=KEY)
    except QueueEvalError as error:
        assert "eval.yaml" in str(error)


@pytest.mark.parametrize("value", ["!!binary /w==", '"\\ud800"', '"a\\0b"', '{x: ["\\0"]}', '{"\\ud800": 1}'])
@pytest.mark.parametrize("section", ["dataset: {}", "store: {}", "metrics: [{{type: GEval, name: x, criteria: {}}}]"])
def test_what_no_file_can_hold_is_reported(tmp_path: Path, section: str, value: str) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(section.format(value) + "\n")
    with pytest.raises(ConfigError, match=r"eval\.yaml:1: .*(is binary|a character that no text has)"):
        load(path, environment={})


@pytest.mark.parametrize("value", ["!!int ''", "!!bool x", "!!timestamp x", "!!float []"])
def test_a_value_that_does_not_suit_its_tag_is_reported(tmp_path: Path, value: str) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(f"dataset: {value}\n")
    with pytest.raises(ConfigError, match=r"eval\.yaml"):
        load(path, environment={})


@pytest.mark.parametrize("field", ["max_mb_in_flight", "straggler_least_s", "grace_s"])
@pytest.mark.parametrize("value", [".inf", ".nan", "1e999"])
def test_a_number_without_end_is_reported(tmp_path: Path, field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"workers.{field}"):
        load(written(tmp_path, GOOD + f"workers: {{{field}: {value}}}\n"), environment=KEY)


def test_the_manifest_part_names_no_places(tmp_path: Path) -> None:
    frozen = load(
        written(tmp_path, GOOD + "redis: {password_env: P}\n"), environment={**KEY, "P": "x"}
    ).settings.frozen.model_dump(mode="json")
    assert frozen.keys() == {"metrics", "judge", "limits", "retry", "workers", "gate", "labels"}
    assert "sk-canary" not in json.dumps(frozen)


def test_a_number_of_thousands_of_digits_is_reported(tmp_path: Path) -> None:
    """Python refuses to write it."""
    with pytest.raises(ConfigError, match="thousands of digits"):
        load(written(tmp_path, GOOD.replace("minute: 600", f"minute: 0x{'f' * 5000}")), environment=KEY)


def test_the_schema_describes_every_section() -> None:
    schema = Settings.model_json_schema()
    assert {"dataset", "metrics", "judge", "limits", "retry", "store", "redis", "gate", "labels"} <= schema[
        "properties"
    ].keys()


def test_the_commit_comes_from_ci_or_git(tmp_path: Path) -> None:
    assert commit_sha({"GITHUB_SHA": "abc"}, tmp_path) == "abc"
    assert commit_sha({}, tmp_path) is None
    here = commit_sha({}, Path(__file__).parent)
    assert here is None or len(here) == 40


@pytest.mark.parametrize(
    "planted", ["pipe", "[" * 200_000, '{"a": "x"}', '{"a": NaN}', '{"a": -5}', "[1]", '{"a": 1e300}']
)
def test_a_neighbours_durations_neither_hang_nor_weigh_anything(tmp_path: Path, planted: str) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    if planted == "pipe":
        os.mkfifo(folder / "durations.json")
    else:
        (folder / "durations.json").write_text(planted)
    assert earlier_busy_s(str(tmp_path), "mine") == {}


@pytest.mark.parametrize("most", ["requests_per_minute", "tokens_per_minute", "burst", "window_s", "max_in_flight"])
def test_every_limit_that_the_file_takes_makes_a_lane(tmp_path: Path, most: str) -> None:
    """`validate` reports a limit that the limiter cannot take, with its line, before a judge is asked."""
    for amount in ("1", "100", "1.0e+6", "1.0e+9", "1.0e+12", "1.0e+15", "1.0e+300"):
        text = re.sub(r"limits: .*", f"limits: {{{most}: {amount}}}", GOOD)
        try:
            settings = load(written(tmp_path, text), environment=KEY).settings
        except ConfigError as error:
            assert f"limits.{most}" in str(error)
        else:
            assert settings.limits.lane("r").counting
