"""Pure values and decisions: no I/O, clock, randomness or logging."""
