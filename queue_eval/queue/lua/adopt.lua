-- ARGV: 6 RQ's queue name, 7 'scored' or 'dead', then for each case as for enqueue → how many were new
local kind, new = ARGV[7], 0
local registry = kind == 'scored' and finished or failed
for i = 8, #ARGV, 5 do
  local id = ARGV[i]
  if redis.call('HSETNX', job_key(id), 'qe_state', kind) == 1 then
    redis.call('HSET', job_key(id), 'data', ARGV[i + 1], 'size', ARGV[i + 2], 'description', ARGV[i + 3], 'origin', ARGV[6],
      'status', kind == 'scored' and 'finished' or 'failed', 'created_at', wall, 'ended_at', wall, 'deliveries', ARGV[i + 4], 'attempts', 0)
    redis.call('EXPIRE', job_key(id), retention_s)
    -- its hash may have expired while the registry still counts it
    local counted = redis.call('ZADD', registry, 'NX', '+inf', job_id(id))
    redis.call('HINCRBY', run, kind, counted)
    new = new + counted
  end
end
drain_if_done()
keep_alive()
return new
