-- ARGV: 6 case id, 7 execution, 8 delay ms, 9 '1' when the attempt counts, then counters → 1 when this execution held the case
local id, execution, delay_ms = ARGV[6], ARGV[7], tonumber(ARGV[8])
if not holds(id, execution) then
  local at = redis.call('HMGET', job_key(id), 'execution', 'qe_state')
  return at[1] == execution and at[2] == 'ready' and 1 or 0
end
count(10)
if leave_to_other(id, execution) then return 1 end
if ARGV[9] ~= '1' then redis.call('HINCRBY', job_key(id), 'attempts', -1) end
if delay_ms > 0 then
  redis.call('HSET', job_key(id), 'qe_state', 'ready', 'status', 'scheduled')
  redis.call('ZADD', delayed, (now_ms() + delay_ms) / 1000, job_id(id))
else
  make_ready(id, 'queued')
end
return 1
