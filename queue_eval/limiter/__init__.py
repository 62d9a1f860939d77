"""One rate limit for all processes that share a judge account and model: a queue in Redis, charged at release."""
