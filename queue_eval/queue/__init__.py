"""RQ's data model on Redis, with a claim, heartbeat, finish and reap of our own: atomic and fenced."""
