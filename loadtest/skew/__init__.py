"""The queue against static shards, simulated over the real worker and queue code, and really run with processes."""
