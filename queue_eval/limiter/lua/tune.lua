-- Changes what a run brought into the limiter; the next request of any process computes the buckets anew.
-- KEYS: 1 the run's lane (hash), 2 state (hash), 3 lanes (zset, ms)
-- ARGV: 1 run, 2 JSON: configured {field → value}, set {field → value}, lift [field, …], 3 seconds that the lane is kept
-- → the run's limits, in the order of core.limits.DIMENSIONS
local change = cjson.decode(ARGV[2])
-- a run that no worker has joined yet: its workers find the change, and keep it
if redis.call('EXISTS', KEYS[1]) == 0 then
  for field, value in pairs(change.configured) do redis.call('HSET', KEYS[1], field, value) end
  redis.call('ZADD', KEYS[3], clock_ms(), ARGV[1])
end
for field, value in pairs(change.set) do redis.call('HSET', KEYS[1], field, value) end
for _, field in ipairs(change.lift) do redis.call('HDEL', KEYS[1], field) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HSET', KEYS[2], 'dirty', 1) end
return redis.call('HMGET', KEYS[1], 'limit_requests', 'limit_input', 'limit_output', 'limit_tokens')
