"""One rate limit for everybody who shares a judge account and model: a queue in Redis, buckets charged at release."""
