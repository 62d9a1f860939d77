-- ARGV: 6 case id, 7 execution, 8 'scored' or 'dead', 9 reason as RQ's job holds it,
--       10 RQ job data that replaces the payload, then counters
-- → 1 when this execution's outcome is the accepted one
local id, execution, kind = ARGV[6], ARGV[7], ARGV[8]
if not holds(id, execution) then
  -- the reply to the first call may have been lost: the same execution may ask again
  local at = redis.call('HMGET', job_key(id), 'execution', 'qe_state')
  return at[1] == execution and at[2] == kind and 1 or 0
end
count(11)
if kind == 'dead' and leave_to_other(id, execution) then return 0 end -- the other one may still be scored
local job = redis.call('HMGET', job_key(id), 'execution', 'second', 'size', 'leased_ms', 'waited_ms')
drop_lease(id, job[1])
if job[2] then
  drop_lease(id, job[2])
  redis.call('HDEL', job_key(id), 'second')
  add('hedging', -1)
end
redis.call('ZADD', kind == 'scored' and finished or failed, '+inf', job_id(id))
redis.call('HSET', job_key(id), 'qe_state', kind, 'execution', execution, 'status', kind == 'scored' and 'finished' or 'failed', 'ended_at', wall)
redis.call('EXPIRE', job_key(id), retention_s)
if kind == 'scored' then
  redis.call('HSET', job_key(id), 'data', ARGV[10]) -- the payload has done its work; Redis stays small
  add('done_ms', math.max(0, now_ms() - tonumber(job[4]) - (tonumber(job[5]) or 0)))
  add('done_bytes', (tonumber(job[3]) or 0) + OVERHEAD_BYTES)
else
  -- not in RQ's stream of results: a user that may write there could plant what a dashboard unpickles
  redis.call('HSET', job_key(id), 'exc_info', ARGV[9])
end
redis.call('HINCRBY', run, kind, 1)
drain_if_done()
return 1
