-- ARGV: 6 case id, 7 execution, 8 'scored' or 'dead', 9 reason as RQ's results hold it, 10 RQ job data that replaces the payload, 11 worker, then counters
-- → 1 when this execution's outcome is the accepted one
local RQ_FAILED = 2 -- rq.results.Result.Type
local id, execution, kind = ARGV[6], ARGV[7], ARGV[8]
if not holds(id, execution) then
  -- the reply to the first call may have been lost: the same execution may ask again
  local at = redis.call('HMGET', job_key(id), 'execution', 'qe_state')
  return at[1] == execution and at[2] == kind and 1 or 0
end
redis.call('ZADD', kind == 'scored' and finished or failed, '+inf', job_id(id))
redis.call('HSET', job_key(id), 'qe_state', kind, 'status', kind == 'scored' and 'finished' or 'failed', 'ended_at', wall)
if kind == 'scored' then
  redis.call('HSET', job_key(id), 'data', ARGV[10]) -- the payload has done its work; Redis stays small
else
  local results = 'rq:results:' .. job_id(id)
  redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', RQ_FAILED, 'worker_name', ARGV[11], 'exc_string', ARGV[9])
  redis.call('EXPIRE', results, retention_s)
end
drop_lease(id, execution)
redis.call('HINCRBY', run, kind, 1)
count(12)
drain_if_done()
return 1
