-- ARGV: 6 limit, 7 used bytes, 8 capacity bytes, 9 lease ms, 10 worker
-- → {state, hold, concurrency, case id, execution, delivery, attempt, size, data, case id, …}
local limit, used, capacity, lease_ms, worker = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local SWEEP = 200 -- abandoned or due cases moved by one call: bounds how long it blocks the server
local at = redis.call('HMGET', run, 'state', 'hold', 'epoch', 'concurrency')
if not at[1] then return {'', '', ''} end
local out = {at[1], at[2] or '', at[4] or ''}
local now = now_ms()

-- reap: a lease that ended without a word. Its attempt stays counted: an out-of-memory kill must not repeat for ever.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, SWEEP)) do
  local execution = redis.call('HGET', job_key(id), 'execution')
  drop_lease(id, execution or '')
  if execution then
    redis.call('HSET', job_key(id), 'qe_state', 'ready', 'status', 'queued')
    redis.call('LPUSH', ready, job_id(id))
    redis.call('HINCRBY', run, 'reaped', 1)
  end
end
-- promote: delayed retries that are due go to the front
for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now / 1000, 'LIMIT', 0, SWEEP)) do
  redis.call('ZREM', delayed, id)
  redis.call('LPUSH', ready, id)
end
if at[2] or at[1] == 'ABORTED' or at[1] == 'FINALIZED' then return out end

local taken = 0
while taken < limit do
  local full = redis.call('LINDEX', ready, 0)
  if not full then break end
  local id = string.sub(full, #id_prefix + 1)
  local job = redis.call('HMGET', job_key(id), 'qe_state', 'size', 'data')
  local state, size = job[1], math.min(tonumber(job[2]) or 0, capacity)
  if state == 'ready' or state == 'dead' then
    if used + size > capacity then break end
    redis.call('LPOP', ready)
    if state == 'dead' then -- `rq requeue` brought a dead case back
      redis.call('HINCRBY', run, 'dead', -1)
      redis.call('HSET', job_key(id), 'attempts', 0)
      redis.call('ZREM', failed, full)
      if at[1] == 'DRAINED' then redis.call('HSET', run, 'state', 'SEALED') end
    end
    local delivery = redis.call('HINCRBY', job_key(id), 'deliveries', 1)
    local attempt = redis.call('HINCRBY', job_key(id), 'attempts', 1)
    local execution = at[3] .. '-' .. delivery -- the epoch survives no wipe: executions of before it hold nothing
    redis.call('HSET', job_key(id), 'qe_state', 'leased', 'execution', execution, 'status', 'started', 'worker_name', worker, 'started_at', wall)
    redis.call('ZADD', leases, now + lease_ms, id)
    redis.call('ZADD', started, '+inf', full .. ':' .. execution)
    redis.call('HINCRBY', run, 'executions', 1)
    taken, used = taken + 1, used + size
    for _, v in ipairs({id, execution, delivery, attempt, tonumber(job[2]) or 0, job[3]}) do out[#out + 1] = v end
  else
    redis.call('LPOP', ready) -- expired, scored or leased: an entry that somebody else pushed
  end
end
return out
