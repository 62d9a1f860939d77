-- ARGV: from 6, for each case as for enqueue → how many were scored and are ready again
local opened = 0
for i = 6, #ARGV, 5 do
  local id = ARGV[i]
  local kind = redis.call('HGET', job_key(id), 'qe_state')
  -- its hash may have expired while the registry still counts it: enqueue makes a new one
  if (kind == 'scored' or not kind) and redis.call('ZREM', finished, job_id(id)) == 1 then
    redis.call('HINCRBY', run, 'scored', -1)
  end
  if kind == 'scored' then
    -- finishing has replaced the payload
    local before = tonumber(redis.call('HGET', job_key(id), 'deliveries') or 0) or 0
    local deliveries = math.max(before, tonumber(ARGV[i + 4]))
    redis.call('HSET', job_key(id), 'deliveries', deliveries, 'data', ARGV[i + 1], 'size', ARGV[i + 2],
      'qe_state', 'ready', 'status', 'queued', 'attempts', 0, 'crashes', 0)
    redis.call('EXPIRE', job_key(id), retention_s)
    redis.call('RPUSH', ready, job_id(id))
    opened = opened + 1
  end
end
if opened > 0 then reopen() end
keep_alive()
return opened
