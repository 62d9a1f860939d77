"""Case files in every form that people have, and in the forms that they have by accident."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_eval.core.case import Case
from queue_eval.core.errors import DataError, NoInputError, QueueEvalError, UsageError
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.fields import FieldError, depth, normalized
from queue_eval.dataset.reader import CaseFile
from queue_eval.dataset.selection import Selection
from queue_eval.dataset.unknown_fields import UnknownFields

ROW = {"input": "q", "actual_output": "a", "retrieval_context": ["c1", "c2"], "tags": ["t"]}


def read(path: Path, **bounds: int) -> list[Case]:
    return list(CaseFile(str(path), Bounds(**bounds)))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.jsonl", json.dumps(ROW) + "\n\n"),
        ("c.jsonl", "\ufeff" + json.dumps(ROW)),
        ("c.json", json.dumps([ROW])),
        ("c.json", json.dumps({"test_cases": [ROW]})),
        ("c.json", json.dumps(ROW)),
        ("c.jsonl", json.dumps({"input": "q", "actualOutput": "a", "retrievalContext": "c1|c2", "tags": ["t"], "expectedOutput": None})),
        ("c.csv", "input,actual_output,retrieval_context,tags\nq,a,c1|c2,t\n"),
        ("c.csv", 'input,actual_output,retrieval_context,tags\nq,a,"[""c1"", ""c2""]",t\n'),
    ],
)  # fmt: skip
def test_every_form_gives_the_same_case(tmp_path: Path, name: str, text: str) -> None:
    (case,) = read(written(tmp_path / name, text))
    assert case.fields == ROW
    assert case.kind == "single"


def test_gzip_reads_as_the_file_inside(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    (case,) = read(path)
    assert case.fields == ROW


def test_what_deepeval_saves_is_read_back(tmp_path: Path) -> None:
    from deepeval.dataset import EvaluationDataset, Golden

    golden = Golden(input="q", actual_output="a", expected_output="e", context=["c1", "c2"], retrieval_context=["r"])
    for kind in ("json", "jsonl", "csv"):
        dataset = EvaluationDataset(goldens=[golden])
        path = dataset.save_as(file_type=kind, directory=str(tmp_path), include_test_cases=False)
        (case,) = read(Path(path))
        assert (case.fields["input"], case.fields["actual_output"], case.fields["context"]) == (
            "q",
            "a",
            ["c1", "c2"],
        ), kind


def test_a_conversation_is_known_by_its_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    (case,) = read(written(tmp_path / "c.json", json.dumps([{"turns": turns, "chatbotRole": "helper"}])))
    assert case.kind == "conversational"
    assert case.fields["chatbot_role"] == "helper"


def test_lines_are_named_in_places(tmp_path: Path) -> None:
    text = "[\n" + json.dumps(ROW) + ",\n\n" + json.dumps(ROW) + "\n]"
    assert [c.place for c in read(written(tmp_path / "c.json", text))] == ["c.json:2", "c.json:4"]


def test_all_that_is_wrong_with_a_file_is_reported_at_once(tmp_path: Path) -> None:
    """Up to ten of its lines, and no case after the first of them is taken for good."""
    good, bad = '{"input": "q"}', ['{"input": ', "[1]", '{"actual_output": "a"}', '{"input": 5}']
    file = CaseFile(str(written(tmp_path / "c.jsonl", "\n".join([good, *bad, good]))), Bounds())
    taken: list[Case] = []
    with pytest.raises(DataError) as error:
        taken.extend(file)
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == [f"c.jsonl:{n}" for n in (2, 3, 4, 5)]
    assert [case.place for case in taken] == ["c.jsonl:1"]
    with pytest.raises(DataError) as error:
        read(written(tmp_path / "c.jsonl", "\n".join([good] + bad * 100)))
    assert len(str(error.value).splitlines()) == 10
    with pytest.raises(DataError) as error:
        read(written(tmp_path / "c.csv", 'input,actual_output\n,a\nq,a\n"open\n'))
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == ["c.csv:2", "c.csv:4"]


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """Semicolons where a comma is the decimal sign, empty rows at the end, an ending in capitals."""
    expected = [{"input": "q, with a comma", "actual_output": "a; b"}]
    semicolons = 'input;actual_output;flaky\n"q, with a comma";"a; b";False\n;;\n;;;;;\n'
    commas = '\ufeffinput,actual_output\n"q, with a comma","a; b"\n,\n,,,\n'
    for text in (semicolons, commas):
        assert [case.fields for case in read(written(tmp_path / "c.csv", text))] == expected
    packed = tmp_path / "C.CSV.GZ"
    packed.write_bytes(gzip.compress(commas.encode()))
    assert [case.fields for case in read(packed)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "input\n" + "x" * 5_000,
        'input\n"' + "x\n" * 2_000 + '"\n',
        "input,actual_output\n" + "x" * 900 + "," + "y" * 900 + "\n",
        "x" * 5_000,
    ],
)
def test_a_csv_file_is_read_within_the_bounds_of_a_case(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"more than 1,000 bytes|field larger than"):
        read(written(tmp_path / "c.csv", text), max_case_bytes=1_000)


def test_texts_that_are_taken_for_lists_are_reported(tmp_path: Path) -> None:
    """DeepEval joins with `|`; a text may hold one too."""
    rows = 'input,context,retrieval_context\nq,one|another,"two\nlines, one text"\nq,"[""a | b"", ""c""]",x\n'
    file = CaseFile(str(written(tmp_path / "c.csv", rows)), Bounds())
    first, second = file
    assert (first.fields["context"], first.fields["retrieval_context"]) == (
        ["one", "another"],
        ["two\nlines, one text"],
    )
    assert second.fields["context"] == ["a | b", "c"]
    assert file.split == {"context"}
    (remark,) = file.remarks
    assert "write JSON lists where they are texts" in remark


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "a | b\n---|---\n1 | 2",
        "one||two",
        "|one|two",
        "['one', 'two']",
        "['one' 'two']",
        '["one", "two"] more]',
    ],
)
@pytest.mark.parametrize("field", ["context", "retrieval_context", "tags"])
def test_a_text_that_is_a_list_by_a_guess_alone_is_refused(tmp_path: Path, field: str, text: str) -> None:
    with pytest.raises(DataError, match=rf"c\.jsonl:1: '{field}' .* (write a JSON list|write it with json\.dumps)"):
        read(written(tmp_path / "c.jsonl", json.dumps({"input": "q", field: text})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expectations", {"must": ["be kind"]}),
        ("mcp_servers", [{"server_name": "s"}]),
        ("mcpToolsCalled", [{"name": "t"}]),
        ("mcp_resources_called", [{}]),
        ("mcp_prompts_called", [{}]),
        ("voice", {"gain": 1}),
        ("flaky", True),
    ],
)
def test_what_deepeval_would_judge_and_we_would_not_is_refused_by_name(
    tmp_path: Path, name: str, value: object
) -> None:
    turns = [{"role": "user", "content": "x"}]
    for row in (
        {**ROW, name: value},
        {"turns": turns, name: value},
        {"turns": [{**turns[0], name: value}]},
    ):
        with pytest.raises(DataError, match="is not served; take it out, or score the case with DeepEval itself"):
            read(written(tmp_path / "c.jsonl", json.dumps(row)))
    file = CaseFile(str(written(tmp_path / "c.jsonl", json.dumps({**ROW, name: None, "flaky": False}))), Bounds())
    assert ([case.fields for case in file], file.remarks) == ([ROW], [])


def test_unknown_fields_are_left_out_and_reported(tmp_path: Path) -> None:
    file = CaseFile(str(written(tmp_path / "c.jsonl", json.dumps({**ROW, "actual_ouput": "typo"}))), Bounds())
    (case,) = file
    assert case.fields == ROW
    assert file.ignored == ["actual_ouput"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.jsonl", '{"input": "q"}\n{"input": ', r"c\.jsonl:2: not JSON"),
        ("c.jsonl", '{"input": "q"}\n["q"]', r"c\.jsonl:2: expected an object"),
        ("c.jsonl", '{"actual_output": "a"}', r"c\.jsonl:1: no 'input'"),
        ("c.jsonl", '{"input": 5}', r"'input' is int, not text"),
        ("c.jsonl", '{"input": "q", "context": [1]}', r"'context' must be a list of texts"),
        ("c.jsonl", '{"turns": []}', r"'turns' must be a list"),
        ("c.jsonl", '{"turns": [{"role": "system", "content": "x"}]}', r"a turn needs 'role'"),
        ("c.jsonl", '{"input": "q", "tools_called": "no json"}', r"'tools_called' is not JSON"),
        ("c.jsonl", '{"input": ' + "[" * 100_000, r"nested too deeply|not JSON"),
        ("c.jsonl", '[\n{"input": "q"}\n]', r"c\.jsonl:1: .* a list of cases belongs into a \.json file"),
        ("c.jsonl", '{"input": "q", "metadata": ' + '{"a":' * 40 + "1" + "}" * 41, r"nested deeper than 32"),
        ("c.jsonl", json.dumps({"input": "q", "metadata": '{"a":' * 40 + "1" + "}" * 40}), r"nested deeper than 32"),
        ("c.jsonl", json.dumps({"input": "q", "metadata": "[" * 100_000}), r"'metadata' is not JSON"),
        ("c.jsonl", json.dumps({"input": "q", "metadata": '{"a": NaN}'}), r"'metadata' is not JSON"),
        ("c.json", '[{"input": "q"}', r"expected ',' or '\]' after a case; the file may be half-written"),
        ("c.json", '[{"input": "q"},', r"the list does not end; the file is half-written"),
        ("c.json", '[{"input": "q"} {"input": "r"}]', r"expected ',' or '\]'"),
        ("c.json", '[{"input": "q"},\n{"input": oops}]', r"c\.json:2: not JSON"),
        ("c.json", "", r"found 'nothing'"),
        ("c.json", '"text"', r"expected a list"),
        (
            "c.json",
            '{"input": "q"}\n{"input": "r"}',
            r"c\.json:2: more text after the end of the JSON; JSON lines belong into a \.jsonl file",
        ),
        ("c.json", '[{"input": "q"}] [{"input": "r"}]', r"more text after the end"),
        ("c.json", '[{"input": ' + "1" * 5000 + "}]", r"not JSON"),
        ("c.jsonl", '{"input": "\\ud800"}', r"half of a surrogate pair"),
        ("c.jsonl", '{"input": "q", "tags": [{"a": 1}]}', r"'tags' must be a list of texts"),
        ("c.jsonl", '{"input": "q", "question": "r"}', r"'question' is another name of a field that is there already"),
        (
            "c.json",
            '{"test_cases": [{"input": "q"}], "goldens": [{"input": "r"}]}',
            r"both 'test_cases' and 'goldens' hold cases",
        ),
        ("c.jsonl", '{"input": "q", "metadata": {"x": NaN}}', r"NaN is no number"),
        ("c.jsonl", '{"input": "q", "metadata": {"x": 1e999}}', r"1e999 is no number"),
        ("c.csv", "input,input\nq,r\n", r"the column 'input' is there twice"),
        ("c.csv", "input,actual_output\nq,a,extra\n", r"more cells than the header"),
        ("c.csv", 'input\n"open\n', r"not CSV"),
    ],
)
def test_bad_files_are_refused_in_one_line_with_their_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(written(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_table_with_bad_rows_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "c.csv", "input,actual_output\nq,a,extra\nr,b\ns,c,extra\n")
    with pytest.raises(DataError) as error:
        read(path)
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == ["c.csv:2", "c.csv:4"]


def test_a_half_written_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode() * 50)[:-12])
    with pytest.raises(DataError, match="half-written gzip"):
        read(path)


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 60_000_000))
    with pytest.raises(DataError, match=r"unpacks to more than|more than 2,000,000 bytes"):
        read(path)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes('{"input": "ä"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path / "c.jsonl")


def test_bounds_are_enforced_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "c.jsonl", (json.dumps(ROW) + "\n") * 3)
    with pytest.raises(DataError, match=r"more than 2 cases.*max_cases"):
        read(path, max_cases=2)
    with pytest.raises(DataError, match=r"c\.jsonl:1.*max_case_bytes"):
        read(path, max_case_bytes=20)
    for wrapped in ([{"input": "x" * 5000}], {"test_cases": [{"input": "x" * 5000}]}, {"input": "x" * 5000}):
        giant = written(tmp_path / "g.json", json.dumps(wrapped))
        with pytest.raises(DataError, match="max_case_bytes"):
            read(giant, max_case_bytes=1000)


def test_missing_and_unnamed_files(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(NoInputError, match="no regular file"):
        (tmp_path / "d.jsonl").mkdir()
        read(tmp_path / "d.jsonl")
    with pytest.raises(NoInputError, match="no regular file"):  # no process writes to it: reading would never end
        os.mkfifo(tmp_path / "pipe.jsonl")
        read(tmp_path / "pipe.jsonl")
    with pytest.raises(UsageError, match=r"must end in \.jsonl"):
        read(written(tmp_path / "c.txt", "x"))


class TestSelection:
    cases = [
        Case(case_id=str(n), kind="single", fields={"input": "q", "tags": ["even"] if n % 2 == 0 else []}, place="")
        for n in range(100)
    ]

    def ids(self, **how: Any) -> list[int]:
        return [int(c.case_id) for c in Selection(**how).of(self.cases)]

    def test_limit_takes_the_first(self) -> None:
        assert self.ids(limit=3) == [0, 1, 2]

    def test_a_tag_filters_before_the_limit(self) -> None:
        assert self.ids(tags=("even",), limit=3) == [0, 2, 4]

    def test_of_several_tags_one_is_enough(self) -> None:
        cases = [
            Case(case_id=str(n), kind="single", fields={"input": "q", "tags": tags}, place="")
            for n, tags in enumerate((["a"], ["b"], ["c"], ["a", "b"], []))
        ]
        chosen = Selection(tags=("a", "b"))
        assert [case.case_id for case in chosen.of(cases)] == ["0", "1", "3"]
        assert chosen.described == "filter a or b"

    def test_a_sample_depends_on_its_seed_alone_and_keeps_the_order(self) -> None:
        one, two = self.ids(sample=10, seed=1), self.ids(sample=10, seed=2)
        assert one == self.ids(sample=10, seed=1) == sorted(one)
        assert one != two
        assert len(set(one)) == 10

    def test_every_case_is_as_likely(self) -> None:
        counts = [0] * 100
        for seed in range(1000):
            for n in self.ids(sample=10, seed=seed):
                counts[n] += 1
        # binomial(1000, 0.1): mean 100, six standard deviations are 57
        assert all(43 < c < 157 for c in counts)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | texts,
    lambda v: st.lists(v) | st.dictionaries(texts, v),
    max_leaves=8,
)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"input": texts, "actual_output": texts, "context": st.lists(texts, min_size=1, max_size=3)}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_json_and_jsonl_agree_on_any_cases(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("agree")
    as_list = read(written(folder / "c.json", json.dumps(rows, indent=1)))
    as_lines = read(written(folder / "d.jsonl", "\n".join(json.dumps(r) for r in rows)))
    assert [c.fields for c in as_list] == [c.fields for c in as_lines] == rows
    assert [c.case_id for c in as_list] == [c.case_id for c in as_lines]


@given(rows=st.lists(st.fixed_dictionaries({"input": texts, "actual_output": texts}), min_size=1, max_size=5))
def test_csv_reads_what_csv_writes(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["input", "actual_output"])
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert [c.fields for c in read(path)] == rows


@settings(max_examples=300)
@given(data=st.binary(max_size=300), name=st.sampled_from(["c.jsonl", "c.json", "c.csv", "c.jsonl.gz"]))
def test_any_bytes_give_cases_or_one_clear_line(
    data: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(data)
    try:
        read(path)
    except QueueEvalError as error:
        assert "\n" not in str(error)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_any_object_is_a_case_or_a_field_error(row: dict[str, Any]) -> None:
    try:
        kind, fields = normalized(row, UnknownFields(), set())
    except FieldError:
        return
    assert kind in ("single", "conversational")
    assert fields


@given(st.integers(0, 50))
def test_depth_counts_the_levels(levels: int) -> None:
    value: Any = 1
    for n in range(levels):
        value = [value] if n % 2 else {"k": value}
    assert depth(value) == levels


@pytest.mark.parametrize(
    "row",
    [
        '{"input": ["PROMPT"]}',
        '{"input": "q", "context": [1, "PROMPT"]}',
        '{"turns": "PROMPT"}',
        '{"turns": [{"role": "PROMPT", "content": "PROMPT"}]}',
    ],
)
def test_what_is_wrong_with_a_case_is_reported_without_its_text(tmp_path: Path, row: str) -> None:
    """The producer's error stands in its pod's log and status."""
    with pytest.raises(DataError) as shown:
        read(written(tmp_path / "c.jsonl", row))
    assert "PROMPT" not in str(shown.value)
    assert "c.jsonl" in str(shown.value)


def test_reading_cases_leaves_other_readers_of_csv_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("input,actual_output\n" + "q,a\n" * 3)
    before = csv.field_size_limit()
    rows = iter(CaseFile(str(path), Bounds(max_case_bytes=1000)))
    next(rows)
    assert csv.field_size_limit() == before
    assert sum(1 for _ in rows) == 2
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("further", [998, 999, 200_000])
def test_a_table_has_a_thousand_columns_at_most(tmp_path: Path, further: int) -> None:
    """Each costs time in each row, though the row is short."""
    path = tmp_path / "c.csv"
    path.write_text(",".join(["input", "actual_output", *(f"c{n}" for n in range(further))]) + "\nq,a\n")
    if further == 998:
        assert [case.fields for case in read(path)] == [{"input": "q", "actual_output": "a"}]
        return
    with pytest.raises(DataError, match=rf"c\.csv:1: {further + 2:,} columns, and a table has at most 1,000"):
        read(path)


def test_of_many_and_long_names_of_fields_a_few_are_shown(tmp_path: Path) -> None:
    rows = [{**ROW, "x" * 50_000 + str(n): 1, **{f"f{n}_{k}": 1 for k in range(500)}} for n in range(20)]
    file = CaseFile(str(written(tmp_path / "c.jsonl", "\n".join(map(json.dumps, rows)))), Bounds())
    assert len(list(file)) == 20
    assert len(file.remarks[0]) < 1_000
    assert sum(map(len, file.ignored)) < 100_000
    for row in (
        {"x" * 50_000: 1},
        {"Q" + "q" * 50_000: 1, "_q" + "q" * 50_000: 1},
        dict.fromkeys(map(str, range(9_000)), 1),
    ):
        with pytest.raises(DataError) as error:
            read(written(tmp_path / "c.jsonl", json.dumps(row)))
        assert len(str(error.value)) < 1_100


def test_a_table_whose_first_line_names_its_separator_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('sep=;\ninput;actual_output\n"a, b";c\n ; \n')
    (case,) = CaseFile(str(path), Bounds())
    assert (case.fields, case.place) == ({"input": "a, b", "actual_output": "c"}, "c.csv:3")


@pytest.mark.parametrize(
    "text",
    ["('a', 'b')", "{'a', 'b'}", "{'a'}", "array(['a', 'b'], dtype=object)", "frozenset({'a'})", " tuple(['a'])"],
)
def test_a_list_as_python_prints_it_is_refused(text: str) -> None:
    with pytest.raises(FieldError, match="as Python or numpy prints one"):
        normalized({"input": "q", "retrieval_context": text}, UnknownFields(), set())


@pytest.mark.parametrize("text", ['{"a": 1}', "{'a': 1}", "(see below) and 'so on')", "a set (of 'things')"])
def test_a_text_that_only_looks_a_little_like_one_is_a_context(text: str) -> None:
    _, fields = normalized({"input": "q", "retrieval_context": text}, UnknownFields(), set())
    assert fields["retrieval_context"] == [text]


def test_fields_that_no_turn_has_are_reported() -> None:
    unknown = UnknownFields()
    turn = {"role": "user", "content": "q", "mood": "good", "additional_metadata": {"a": 1}}
    normalized({"turns": [turn]}, unknown, set())
    assert unknown.names == ["turns[].mood"]
