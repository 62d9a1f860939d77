"""How much a case file may ask of us. All of it is configurable; the defaults stop accidents, not work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    max_cases: int = 1_000_000
    max_case_bytes: int = 2_000_000
    max_depth: int = 32
    max_decompression_ratio: int = 200  # of a .gz, once it has grown past 10 MB
