"""Untrusted text in a table."""

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from queue_eval.report.escape import for_cell

BEGINS_A_FORMULA = tuple("=+-@＝＋－＠\t\r\n")


@given(st.text(st.sampled_from([*BEGINS_A_FORMULA, ";", " ", "a", "'"]), max_size=12))
def test_no_cell_is_a_formula_in_a_spreadsheet_that_divides_at_commas_or_at_semicolons(text: str) -> None:
    cell = for_cell(text)
    assert not cell.startswith(BEGINS_A_FORMULA)
    assert not any(part.startswith(tuple("=+-@＝＋－＠")) for part in cell.split(";"))


@given(st.lists(st.text(st.sampled_from([*BEGINS_A_FORMULA, ";", '"', " ", "a", "'", ","]), max_size=12), max_size=3))
def test_no_cell_of_a_written_table_is_a_formula_whatever_divides_it(texts: list[str]) -> None:
    table = io.StringIO()
    csv.writer(table).writerow(map(for_cell, texts))
    # where semicolons divide cells, a quote within one is a character, and a line break ends the row
    for cell in re.split(r"[;\r\n]", table.getvalue()):
        assert not cell.lstrip("\"'").startswith(tuple("=+-@＝＋－＠")) or cell.lstrip('"').startswith("'")
    for row in csv.reader(io.StringIO(table.getvalue())):
        assert not any(cell.startswith(BEGINS_A_FORMULA) for cell in row)


def test_what_is_no_formula_stays_as_it_is() -> None:
    assert [for_cell(text) for text in ("", "a=1", "1-2", "x; y", "a@b")] == ["", "a=1", "1-2", "x; y", "a@b"]
