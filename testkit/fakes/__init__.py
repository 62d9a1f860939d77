"""Fakes that pass the same contract suites as the real things. For unit tests, never for a run."""
