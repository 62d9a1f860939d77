"""The result store: the truth about a run."""
