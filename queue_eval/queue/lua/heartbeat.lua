-- ARGV: 6 lease ms, 7 worker, then for each case in flight its id, execution and its ms of waiting for the limiter
-- → executions that hold nothing any more
local lease_ms, now, lost = tonumber(ARGV[6]), now_ms(), {}
in_contact(lease_ms, now)
-- its finish or release has overtaken this heartbeat: nothing was lost
local function ended_itself(case_id, execution)
  local at = redis.call('HMGET', job_key(case_id), 'execution', 'qe_state')
  return at[1] == execution and at[2] ~= 'leased'
end
for i = 8, #ARGV, 3 do
  if holds(ARGV[i], ARGV[i + 1]) then
    lease(ARGV[i], ARGV[i + 1], now + lease_ms)
    redis.call('EXPIRE', job_key(ARGV[i]), retention_s)
    if tonumber(ARGV[i + 2]) > 0 and redis.call('HGET', job_key(ARGV[i]), 'execution') == ARGV[i + 1] then
      redis.call('HSET', job_key(ARGV[i]), 'waited_ms', ARGV[i + 2])
    end
  elseif not ended_itself(ARGV[i], ARGV[i + 1]) then
    lost[#lost + 1] = ARGV[i + 1]
    lost[#lost + 1] = ARGV[i]
  end
end

-- A run may last longer than the lifetime of a job hash, and a case that expires would never end. So each heartbeat renews some
-- of those that no worker holds: all of them within a quarter of the retention, were there one worker alone.
local RENEW_LEAST = 20
local function renew()
  if not redis.call('HGET', run, 'state') or redis.call('HGET', run, 'state') == 'FINALIZED' then return end
  for number, part in ipairs({{'L', ready}, {'L', quarantined}, {'Z', delayed}, {'Z', finished}, {'Z', failed}}) do
    local size = redis.call(part[1] == 'L' and 'LLEN' or 'ZCARD', part[2])
    -- a worker's heartbeat comes every third of its lease
    local most = math.max(RENEW_LEAST, math.ceil(size * 4 * lease_ms / 3000 / retention_s))
    local skip = tonumber(redis.call('HGET', run, 'renewed' .. number) or 0)
    if skip >= size then skip = 0 end
    -- from the tail, where a queue stands still
    for _, full in ipairs(redis.call(part[1] .. 'RANGE', part[2], -(skip + most), -(skip + 1))) do
      redis.call('EXPIRE', job_key(case_of(full)), retention_s)
    end
    if size > 0 then redis.call('HSET', run, 'renewed' .. number, skip + most) end
  end
end
renew()

redis.call('ZADD', workers, now, ARGV[7])
keep_alive()
return lost
