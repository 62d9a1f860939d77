"""Our limiter beside others, against providers that count for themselves."""
