-- ARGV: 6 lease ms, 7 worker, then case id and execution for each case in flight → executions that hold nothing any more
local lease_ms, now, lost = tonumber(ARGV[6]), now_ms(), {}
in_contact(lease_ms, now)
-- its finish or release has overtaken this heartbeat: nothing was lost
local function ended_itself(case_id, execution)
  local at = redis.call('HMGET', job_key(case_id), 'execution', 'qe_state')
  return at[1] == execution and at[2] ~= 'leased'
end
for i = 8, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    lease(ARGV[i], ARGV[i + 1], now + lease_ms)
    redis.call('EXPIRE', job_key(ARGV[i]), retention_s)
  elseif not ended_itself(ARGV[i], ARGV[i + 1]) then
    lost[#lost + 1] = ARGV[i + 1]
    lost[#lost + 1] = ARGV[i]
  end
end

-- A run may last longer than the lifetime of a job hash, and a case that expires would never end. So each heartbeat renews some
-- of those that nobody holds: all of them within a quarter of the retention, were there one worker alone.
local RENEW_LEAST = 100
local function renew()
  local at = redis.call('HMGET', run, 'state', 'renewed')
  if not at[1] or at[1] == 'FINALIZED' then return end
  local parts, total = {{'L', ready}, {'L', suspects}, {'Z', delayed}, {'Z', finished}, {'Z', failed}}, 0
  for _, part in ipairs(parts) do
    part.size = redis.call(part[1] == 'L' and 'LLEN' or 'ZCARD', part[2])
    total = total + part.size
  end
  local skip = tonumber(at[2] or 0)
  if skip >= total then skip = 0 end
  -- a worker's heartbeat comes every third of its lease
  local most = math.max(RENEW_LEAST, math.ceil(total * 4 * lease_ms / 3000 / retention_s))
  redis.call('HSET', run, 'renewed', skip + most)
  for _, part in ipairs(parts) do
    if skip < part.size and most > 0 then
      -- from the tail, where a queue stands still
      local some = redis.call(part[1] .. 'RANGE', part[2], -(skip + most), -(skip + 1))
      for _, full in ipairs(some) do redis.call('EXPIRE', job_key(case_of(full)), retention_s) end
      most = most - #some
    end
    skip = math.max(0, skip - part.size)
  end
end
renew()

redis.call('ZADD', workers, now, ARGV[7])
keep_alive()
return lost
