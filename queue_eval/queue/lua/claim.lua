-- ARGV: 6 limit, 7 used bytes, 8 capacity bytes, 9 lease ms, 10 worker, 11 its claim's number, 12 '1' when it has a quarantined case already,
--       13 times the expected duration after which a case is hedged (0: never), 14 but at least these ms
-- → {state, hold, concurrency, case id, execution, delivery, attempt, crashes, size, data, case id, …}
local limit, used, capacity, lease_ms, worker = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local number, has_quarantined = tonumber(ARGV[11]), ARGV[12] == '1'
local straggler_times, straggler_least_ms = tonumber(ARGV[13]), tonumber(ARGV[14])
local NO_HEDGE_MS = 1000
local SWEEP = 200 -- abandoned or due cases moved by one call: bounds how long it blocks the server
local at = redis.call('HMGET', run, 'state', 'hold', 'epoch', 'concurrency')
if not at[1] then return {'', '', ''} end
local out = {at[1], at[2] or '', at[4] or ''}
local now = now_ms()

local function hand_out(id, execution)
  local job = redis.call('HMGET', job_key(id), 'deliveries', 'attempts', 'crashes', 'size', 'data')
  for _, v in ipairs({id, execution, job[1], job[2], job[3] or 0, tonumber(job[4]) or 0, job[5]}) do out[#out + 1] = v end
end

local last = redis.call('HGET', claimed, worker)
local last_number = last and tonumber(string.match(last, '^%S+')) or 0
-- the reply to this very claim was lost: the same again, but for what was lost meanwhile
if number == last_number then
  for id, execution in string.gmatch(last, ' ([^:]+):(%S+)') do
    if holds(id, execution) then hand_out(id, execution) end
  end
end
-- the network kept it back until a later one had come: no worker reads its reply, and what it leased would wait for its lease to end
if number <= last_number then return out end
redis.call('HSET', claimed, worker, number)

-- Redis has lost the job hash: the run's follower sees that cases are missing, and enqueues them again.
local function is_lost(id) return redis.call('EXISTS', job_key(id)) == 0 end
local function has_lease(id)
  for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if string.match(member, '^([^:]+)') == id then return true end
  end
  return false
end

in_contact(lease_ms, now)
-- reap: a lease that ended without a word. That counts as a crash: an out-of-memory kill must not repeat for ever.
if now >= tonumber(redis.call('HGET', run, 'reap_from_ms') or 0) then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, SWEEP)) do
    local id, execution = string.match(member, '^([^:]+):(.*)$')
    if not holds(id, execution) then
      drop_lease(id, execution)
      if is_lost(id) and has_lease(id) then add('hedging', -1) end
    elseif not leave_to_other(id, execution) then
      redis.call('HDEL', job_key(id), 'execution') -- else its release would pass for one whose reply was lost
      redis.call('HINCRBY', job_key(id), 'attempts', -1)
      redis.call('HINCRBY', job_key(id), 'crashes', 1)
      add('reaped', 1)
      make_ready(id, 'queued')
    end
  end
end
-- promote: delayed retries that are due go to the front
for _, full in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now / 1000, 'LIMIT', 0, SWEEP)) do
  redis.call('ZREM', delayed, full)
  if not is_lost(case_of(full)) then make_ready(case_of(full), 'queued') end
end
if at[2] or at[1] == 'ABORTED' or at[1] == 'FINALIZED' then return out end

local taken = {}
local function begin(id, field)
  local delivery = redis.call('HINCRBY', job_key(id), 'deliveries', 1)
  -- the epoch survives no wipe: executions of before it hold nothing. A server that comes back with older data counts deliveries anew:
  -- the worker and its claim's number make each execution's name unique
  local execution = at[3] .. '-' .. delivery .. '-' .. string.match(worker, '[^%-%.: ]*$') .. number
  redis.call('HSET', job_key(id), 'qe_state', 'leased', field, execution, 'status', 'started', 'worker_name', worker, 'started_at', wall)
  redis.call('EXPIRE', job_key(id), retention_s)
  if field == 'execution' then
    redis.call('HSET', job_key(id), 'leased_ms', now)
    redis.call('HDEL', job_key(id), 'hedged', 'waited_ms')
  else
    redis.call('HSET', job_key(id), 'hedged', 1) -- once, whatever becomes of the two
  end
  lease(id, execution, now + lease_ms)
  redis.call('ZADD', started, '+inf', job_id(id) .. ':' .. execution)
  add('executions', 1)
  taken[#taken + 1] = id .. ':' .. execution
  hand_out(id, execution)
end

local function take_from(list, most)
  local first = #taken
  while #taken < limit and #taken - first < most do
    local full = redis.call('LINDEX', list, 0)
    if not full then return end
    local id = case_of(full)
    local job = redis.call('HMGET', job_key(id), 'qe_state', 'size')
    local state, size = job[1], math.min(tonumber(job[2]) or 0, capacity)
    if state == 'ready' or state == 'dead' then
      if used + size > capacity then return end
      redis.call('LPOP', list)
      if state == 'dead' then -- `rq requeue` brought a dead case back
        redis.call('HINCRBY', run, 'dead', -1)
        redis.call('HSET', job_key(id), 'attempts', 0, 'crashes', 0)
        redis.call('ZREM', failed, full)
        if at[1] == 'DRAINED' then redis.call('HSET', run, 'state', 'SEALED') end
      end
      redis.call('HINCRBY', job_key(id), 'attempts', 1)
      begin(id, 'execution')
      used = used + size
    else
      redis.call('LPOP', list) -- expired, scored or leased: an entry that another program pushed
    end
  end
end

-- At the tail, with nothing else to do: the case that is furthest beyond its expected duration, once more, elsewhere.
-- Where none is, no other worker looks again for a second.
local function take_hedged()
  local pace = redis.call('HMGET', run, 'done_ms', 'done_bytes', 'no_hedge_ms')
  if straggler_times == 0 or #taken >= limit or at[1] ~= 'SEALED' or not pace[1] or redis.call('ZCARD', delayed) > 0 then return end
  local seen_ms = now - (tonumber(pace[3]) or -math.huge)
  if seen_ms >= 0 and seen_ms < NO_HEDGE_MS then return end
  local furthest, excess, is_others = nil, 1, false
  for _, member in ipairs(redis.call('ZRANGE', leases, 0, SWEEP - 1)) do
    local id = string.match(member, '^([^:]+)')
    local job = redis.call('HMGET', job_key(id), 'hedged', 'worker_name', 'crashes', 'size', 'leased_ms', 'waited_ms')
    if job[5] and not job[1] and tonumber(job[3] or 0) < QUARANTINE_AFTER then
      local expected_ms = ((tonumber(job[4]) or 0) + OVERHEAD_BYTES) * pace[1] / pace[2]
      -- a second execution would wait for the limiter as well
      local running_ms = now - tonumber(job[5]) - (tonumber(job[6]) or 0)
      local beyond = running_ms / math.max(straggler_least_ms, straggler_times * expected_ms)
      if beyond > 1 and (job[2] == worker or used + math.min(tonumber(job[4]) or 0, capacity) > capacity) then
        is_others = true
      elseif beyond > excess then
        furthest, excess = id, beyond
      end
    end
  end
  if furthest then
    add('hedging', 1)
    add('hedged', 1)
    begin(furthest, 'second')
  elseif not is_others then
    redis.call('HSET', run, 'no_hedge_ms', now)
  end
end

take_from(quarantined, has_quarantined and 0 or 1)
take_from(ready, limit)
if #taken == 0 and redis.call('LLEN', ready) + redis.call('LLEN', quarantined) == 0 then take_hedged() end
if #taken > 0 then redis.call('HSET', claimed, worker, number .. ' ' .. table.concat(taken, ' ')) end
return out
