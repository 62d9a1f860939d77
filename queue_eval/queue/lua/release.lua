-- ARGV: 6 case id, 7 execution, 8 delay ms, 9 '1' when the attempt counts, then counters → 1 when this execution held the case
local id, execution, delay_ms = ARGV[6], ARGV[7], tonumber(ARGV[8])
if not holds(id, execution) then
  local at = redis.call('HMGET', job_key(id), 'execution', 'qe_state')
  return at[1] == execution and at[2] == 'ready' and 1 or 0
end
if delay_ms > 0 then
  redis.call('ZADD', delayed, (now_ms() + delay_ms) / 1000, job_id(id))
else
  redis.call('LPUSH', ready, job_id(id))
end
redis.call('HSET', job_key(id), 'qe_state', 'ready', 'status', delay_ms > 0 and 'scheduled' or 'queued')
if ARGV[9] ~= '1' then redis.call('HINCRBY', job_key(id), 'attempts', -1) end
drop_lease(id, execution)
count(10)
return 1
