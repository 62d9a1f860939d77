"""One rate limit for everybody who shares a judge account and model: a FIFO in Redis, buckets charged at release."""
