"""Rows of each format, with the line each starts on. All of them stream: memory holds one case at a time."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from queue_eval.core.errors import DataError
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.strict_json import finite, no_number, strict_json
from queue_eval.dataset.unknown_fields import shortened

Row = tuple[int, dict[str, Any] | DataError]  # an error that leaves the lines after it readable

_CHUNK = 1 << 16
_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?\r?\n?')  # a first line for spreadsheets
_WRAPPERS = ("test_cases", "testCases", "goldens", "cases")
MAX_COLUMNS = 1_000  # each costs time in each row, empty or not
MAX_WRAPPED_CHARACTERS = 256_000_000  # of one object around a list: it has to be read whole


def jsonl_rows(text: IO[str], name: str, bounds: Bounds) -> Iterator[Row]:
    for line_number, line in enumerate(_bounded_lines(text, name, bounds), 1):
        if line.strip():
            if line_number == 1 and line.lstrip("\ufeff \t").startswith("["):
                raise DataError(
                    f"{name}:1: expected an object on each line, found a list;"
                    " a list of cases belongs into a .json file"
                )
            try:
                yield line_number, _object(_parsed(line, name, line_number), name, line_number)
            except DataError as error:
                yield line_number, error


def json_rows(text: IO[str], name: str, bounds: Bounds) -> Iterator[Row]:
    """The objects of one list, or one object, or a list under "test_cases", "testCases" or "goldens"."""
    yield from _JsonList(text, name, bounds).rows()


@contextmanager
def _field_limit(bounds: Bounds) -> Iterator[None]:
    """The module's limit is the whole process', and other code reads CSV too."""
    before = csv.field_size_limit(bounds.max_case_bytes)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def csv_rows(text: IO[str], name: str, bounds: Bounds) -> Iterator[Row]:
    lines = _bounded_lines(text, name, bounds)
    head = next(lines, "")
    named, before = _SEPARATOR.fullmatch(head), 0  # lines
    if named:
        head, before = next(lines, ""), 1
    # where a comma is the decimal sign, spreadsheets write semicolons
    delimiter = named[1] if named else ";" if ";" in head and "," not in head else ","
    reader = csv.DictReader(chain([head], lines), strict=True, delimiter=delimiter)
    try:
        with _field_limit(bounds):
            fieldnames = list(reader.fieldnames or ())
        if len(fieldnames) > MAX_COLUMNS:
            raise DataError(
                f"{name}:1: {len(fieldnames):,} columns, and a table has at most {MAX_COLUMNS:,};"
                " keep those of the cases"
            )
        twice = {name for name, times in Counter(fieldnames).items() if times > 1}
        if twice:
            raise DataError(f"{name}:1: the column {shortened(min(twice))!r} is there twice; give each its own name")
        while True:
            with _field_limit(bounds):
                row = next(reader, None)
            if row is None:
                return
            beyond = row.pop(None, [])  # where DictReader keeps cells without a column
            if not any(cell and cell.strip() for cell in (*row.values(), *beyond)):
                continue  # what spreadsheets leave at the end
            line = reader.line_num + before
            if beyond:
                wrong = f"more cells than the header has columns ({len(fieldnames)}); quote cells that hold commas"
                yield line, DataError(f"{name}:{line}: {wrong}")
            elif sum(len(cell) for cell in row.values() if cell) > bounds.max_case_bytes:
                yield line, _too_large(name, line, bounds)
            else:
                yield line, dict(row)
    except csv.Error as error:
        raise DataError(
            f"{name}:{reader.reader.line_num + before}: not CSV: {error}; quote cells that hold commas, quotes or line"
            " breaks"
        ) from None


def _bounded_lines(text: IO[str], name: str, bounds: Bounds) -> Iterator[str]:
    number = 0
    while line := text.readline(bounds.max_case_bytes + 2):
        number += 1
        if len(line) > bounds.max_case_bytes:
            raise _too_large(name, number, bounds)
        yield line


class _JsonList:
    """Takes the elements out of a JSON list one at a time."""

    def __init__(self, text: IO[str], name: str, bounds: Bounds) -> None:
        self._text = text
        self._name = name
        self._bounds = bounds
        self._buffer = ""
        self._at = 0
        self._line = 1
        self._decoder = json.JSONDecoder(parse_constant=no_number, parse_float=finite)

    def rows(self) -> Iterator[Row]:
        first = self._peek()
        if first == "{":
            yield from self._wrapped()
            return
        if first != "[":
            raise DataError(f"{self._name}:{self._line}: expected a list of cases, found {first or 'nothing'!r}")
        self._at += 1
        while self._peek() not in ("]", ""):
            line, value = self._line, self._element(self._bounds.max_case_bytes)
            yield line, _object(value, self._name, line)
            if self._peek() == ",":
                self._at += 1
            elif self._peek() != "]":
                raise DataError(
                    f"{self._name}:{self._line}: expected ',' or ']' after a case; the file may be half-written"
                )
        if self._peek() == "":
            raise DataError(f"{self._name}:{self._line}: the list does not end; the file is half-written")
        self._at += 1
        self._expect_the_end()

    def _wrapped(self) -> Iterator[Row]:
        self._buffer += self._text.read(MAX_WRAPPED_CHARACTERS)
        if self._text.read(1):
            raise DataError(
                f"{self._name}: an object of more than {MAX_WRAPPED_CHARACTERS:,} characters; write a list of cases, or"
                " JSON lines"
            )
        body = self._element(MAX_WRAPPED_CHARACTERS)
        self._expect_the_end()
        lists = [key for key in _WRAPPERS if isinstance(body.get(key), list) and body[key]]
        if len(lists) > 1:
            raise DataError(f"{self._name}: both {lists[0]!r} and {lists[1]!r} hold cases; keep one of them")
        for item in body[lists[0]] if lists else [body] if not body.keys() & set(_WRAPPERS) else []:
            if len(json.dumps(item)) > self._bounds.max_case_bytes:
                raise _too_large(self._name, 1, self._bounds)
            yield 1, _object(item, self._name, 1)

    def _expect_the_end(self) -> None:
        if self._peek():
            raise DataError(
                f"{self._name}:{self._line}: more text after the end of the JSON; JSON lines belong into a .jsonl file"
            )

    def _peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._line += self._buffer[self._at] == "\n"
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        data = self._text.read(_CHUNK)
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        return bool(data)

    def _element(self, max_characters: int) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise DataError(f"{self._name}:{self._line}: nested too deeply") from None
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._at > max_characters:
                    raise _too_large(self._name, self._line, self._bounds) from None
                if not self._more():
                    raise DataError(
                        f"{self._name}:{self._line + self._buffer.count(chr(10), self._at, error.pos)}: not JSON:"
                        f" {error.msg}"
                    ) from None
                continue
            except ValueError as error:
                raise DataError(f"{self._name}:{self._line}: not JSON: {error}") from None
            if end - self._at > max_characters:
                raise _too_large(self._name, self._line, self._bounds)
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            return value


def _parsed(line: str, name: str, line_number: int) -> Any:
    try:
        return strict_json(line)
    except ValueError as error:
        raise DataError(f"{name}:{line_number}: not JSON: {error}; every line must be one complete object") from None


def _object(value: Any, name: str, line_number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{name}:{line_number}: expected an object with the fields of a case, found {type(value).__name__}"
        )
    return value


def _too_large(name: str, line_number: int, bounds: Bounds) -> DataError:
    return DataError(
        f"{name}:{line_number}: a case of more than {bounds.max_case_bytes:,} bytes; raise"
        " dataset_bounds.max_case_bytes if that is right"
    )
