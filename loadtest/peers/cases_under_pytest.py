"""What `deepeval test run` runs: each case is a test."""

from typing import Any

import pytest
from deepeval import assert_test

from loadtest.peers.judging import case, metrics, rows, scored


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row["name"]))
def test_case(row: dict[str, Any]) -> None:
    judged, both = case(row), metrics()
    try:
        assert_test(judged, both)
    except AssertionError as failed:
        # a score below its threshold is a score; what did not get one shows it
        if "None" in str(failed):
            raise
    scored(row)
