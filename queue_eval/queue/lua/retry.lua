-- → {how many were looked at, how many of them became ready again}; call it until it has looked at none
local SWEEP = 500 -- bounds how long it blocks the server
local ids = redis.call('ZRANGE', failed, 0, SWEEP - 1)
local revived = 0
for _, full in ipairs(ids) do
  local id = string.sub(full, #id_prefix + 1)
  local score = redis.call('ZSCORE', failed, full)
  redis.call('ZREM', failed, full)
  local kind = redis.call('HGET', job_key(id), 'qe_state')
  if kind == 'dead' then
    redis.call('RPUSH', ready, full)
    redis.call('HSET', job_key(id), 'qe_state', 'ready', 'status', 'queued', 'attempts', 0, 'crashes', 0)
    redis.call('HDEL', job_key(id), 'exc_info')
    redis.call('HINCRBY', run, 'dead', -1)
    revived = revived + 1
  elseif not kind and score == 'inf' then
    -- we wrote the entry (RQ's own have a time), and Redis has lost the job: it waits nowhere, and the run's follower enqueues it again
    redis.call('HINCRBY', run, 'dead', -1)
    revived = revived + 1
  end
end
if revived > 0 then reopen() end
keep_alive()
return {#ids, revived}
