"""A case file as a stream of cases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from queue_eval.core.case import Case, CaseIdentity
from queue_eval.core.errors import DataError, UsageError
from queue_eval.dataset.bounds import Bounds
from queue_eval.dataset.fields import FieldError, depth, normalized
from queue_eval.dataset.open import opened_text
from queue_eval.dataset.rows import Row, csv_rows, json_rows, jsonl_rows
from queue_eval.dataset.unknown_fields import UnknownFields

Rows = Callable[[IO[str], str, Bounds], Iterator[Row]]

SHOWN = 10
MOST_CHARACTERS = 1_000  # of an error
_FORMATS: dict[str, Rows] = {".jsonl": jsonl_rows, ".ndjson": jsonl_rows, ".json": json_rows, ".csv": csv_rows}


class CaseFile:
    """Iterate it once; what it reports besides its cases is complete afterwards."""

    def __init__(self, source: str, bounds: Bounds, *, name: str | None = None) -> None:
        self._path = None if source == "-" else Path(source)
        self._name = name or (self._path.name if self._path else "standard input")
        self._bounds = bounds
        self._identity = CaseIdentity()
        self._unknown = UnknownFields()
        self.split: set[str] = set()  # fields whose text was taken for a list

    @property
    def duplicates(self) -> int:
        return self._identity.duplicates

    @property
    def ignored(self) -> list[str]:
        """Names of fields that no test case has, at most a thousand."""
        return self._unknown.names

    @property
    def remarks(self) -> list[str]:
        """What a person should know of how the file was read."""
        lines = []
        if self.ignored:
            lines.append(f"fields that no test case has, left out: {self._unknown}")
        if self.split:
            lines.append(
                f"taken for lists joined with '|', as DeepEval writes them: {', '.join(sorted(self.split))};"
                " write JSON lists where they are texts"
            )
        return lines

    def __iter__(self) -> Iterator[Case]:
        """DataError at the end, or after ten, naming what is wrong. Nothing is yielded after the first that is."""
        wrong: list[str] = []
        with opened_text(self._path, self._bounds) as text:
            try:
                for line, row in self._bounded(text):
                    try:
                        case = self._case(row, f"{self._name}:{line}")
                    except DataError as error:
                        wrong.append(str(error)[:MOST_CHARACTERS])
                    else:
                        if not wrong:
                            yield case
                    if len(wrong) == SHOWN:
                        break
            except DataError as error:  # nothing behind it can be read
                wrong.append(str(error)[:MOST_CHARACTERS])
        if wrong:
            raise DataError("\n".join(wrong))

    def _bounded(self, text: IO[str]) -> Iterator[Row]:
        for count, row in enumerate(self._rows()(text, self._name, self._bounds)):
            if count == self._bounds.max_cases:
                raise DataError(
                    f"{self._name}: more than {self._bounds.max_cases:,} cases;"
                    " raise dataset_bounds.max_cases or choose a part with --limit"
                )
            yield row

    def _case(self, row: dict[str, Any] | DataError, place: str) -> Case:
        if isinstance(row, DataError):
            raise row
        self._check_depth(row, place)
        try:
            kind, fields = normalized(row, self._unknown, self.split)
        except FieldError as error:
            raise DataError(f"{place}: {error}") from None
        self._check_depth(fields, place)  # again: cells hold JSON too
        try:
            case_id = self._identity.of(kind, fields)
        except UnicodeEncodeError:
            raise DataError(
                f"{place}: holds half of a surrogate pair (such as \\ud800); write whole characters"
            ) from None
        return Case(case_id=case_id, kind=kind, fields=fields, place=place)

    def _check_depth(self, fields: dict[str, Any], place: str) -> None:
        if depth(fields) > self._bounds.max_depth:
            raise DataError(
                f"{place}: nested deeper than {self._bounds.max_depth}; raise dataset_bounds.max_depth if that is right"
            )

    def _rows(self) -> Rows:
        if self._path is None:
            return jsonl_rows
        suffixes = [s.lower() for s in self._path.suffixes if s.lower() != ".gz"]
        rows = _FORMATS.get(suffixes[-1] if suffixes else "")
        if rows is None:
            raise UsageError(
                f"dataset {self._path}: the name must end in {', '.join(_FORMATS)} or one of these with .gz"
            )
        return rows
