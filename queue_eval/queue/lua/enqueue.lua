-- ARGV: 6 RQ's queue name, then for each case: case id, RQ job data, size in bytes, description, earlier executions → how many were new
local new = 0
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
  end
end
if new > 0 then reopen() end -- a run that had ended: Redis has lost jobs of it
keep_alive()
return new
