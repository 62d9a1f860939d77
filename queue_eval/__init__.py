"""Run DeepEval evaluations at scale: a Redis queue of cases, many workers, one rate limit, a verdict."""

__version__ = "0.1.0"
