-- ARGV: 6 RQ's queue name, then for each case: case id, RQ job data, size in bytes, description, earlier executions
-- → how many were new, or were put back
local new = 0

-- A stock RQ worker that was pointed at this queue has taken the case out of it, and failed: RQ's status is no longer ours.
-- And where nothing waits at all, a case that ought to wait is in no list.
local nothing_waits = redis.call('LLEN', ready) + redis.call('LLEN', quarantined) + redis.call('ZCARD', delayed) + redis.call('ZCARD', leases) == 0
local function is_in_no_list(id)
  local at = redis.call('HMGET', job_key(id), 'qe_state', 'status')
  local has_left_its_list = at[1] == 'ready' and at[2] ~= 'queued' and not redis.call('ZSCORE', delayed, job_id(id))
  return has_left_its_list or nothing_waits and at[1] ~= 'scored' and at[1] ~= 'dead'
end
for i = 7, #ARGV, 5 do
  local id = ARGV[i]
  -- a case that is known (waiting, leased or terminal) stays as it is: producing again is safe
  if redis.call('HSETNX', job_key(id), 'qe_state', 'ready') == 1 then
    redis.call('HSET', job_key(id), 'data', ARGV[i + 1], 'size', ARGV[i + 2], 'description', ARGV[i + 3], 'origin', ARGV[6],
      'status', 'queued', 'created_at', wall, 'enqueued_at', wall, 'deliveries', ARGV[i + 4], 'attempts', 0, 'timeout', 3600,
      'result_ttl', retention_s, 'failure_ttl', retention_s)
    redis.call('EXPIRE', job_key(id), retention_s)
    redis.call('RPUSH', ready, job_id(id))
    new = new + 1
  elseif is_in_no_list(id) then
    redis.call('HSET', job_key(id), 'data', ARGV[i + 1], 'size', ARGV[i + 2])
    redis.call('ZREM', failed, job_id(id))
    make_ready(id, 'queued')
    new = new + 1
  end
end
if new > 0 then reopen() end -- a run that had ended: Redis has lost jobs of it
keep_alive()
return new
