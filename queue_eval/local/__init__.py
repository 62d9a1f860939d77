"""A whole run on one machine: a Redis of our own, worker processes, progress."""
