"""How an execution ended, as its record and the name of its object hold it."""

from enum import StrEnum


class Ending(StrEnum):
    SCORED = "scored"  # accepted: results/
    DEAD = "dead"  # attempts exhausted or a case-fatal error; the reason names which
    RETRIED = "retried"  # another attempt will follow
    RELEASED = "released"  # given back through no fault of the case: shutdown, hold
    SUPERSEDED = "superseded"  # another execution's result was accepted first
    OVERHEAD = "overhead"  # no case: the pre-flight call, GEval steps, probes of a held run
