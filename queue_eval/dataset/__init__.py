"""Readers of case files: JSONL, JSON, CSV, their .gz, and standard input, in the forms that DeepEval users have."""
