-- Shared by every script of the queue; see docs/keys.md for the types.
-- KEYS: 1 run (hash), 2 leases (zset, ms), 3 workers (zset, ms), 4 ready (list), 5 delayed (zset, s),
--       6 started (zset, +inf), 7 finished (zset, +inf), 8 failed (zset, +inf), 9 the queue's workers (set)
-- ARGV: 1 prefix of the job hashes, 2 prefix of the job ids, 3 retention in seconds of a new run, 4 wall time for RQ's date fields,
--       5 retention in seconds of a new run once it is finalized, then the script's own
-- Job hashes are named from what the lists hold, so a run lives on one Redis node (no Redis Cluster).
local run, leases, workers, ready, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local started, finished, failed = KEYS[6], KEYS[7], KEYS[8]
local job_prefix, id_prefix, wall = ARGV[1], ARGV[2], ARGV[4]
local retention_s = redis.call('HGET', run, 'retention_s') or ARGV[3]

-- Only the server's clock decides leases.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function job_key(case_id) return job_prefix .. case_id end
local function job_id(case_id) return id_prefix .. case_id end

-- Registries and lists come and go with their members, so their lifetime is set again and again.
local function keep_alive()
  if redis.call('HGET', run, 'state') == 'FINALIZED' then return end -- these may go
  for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], retention_s) end
end

local function holds(case_id, execution)
  local at = redis.call('HMGET', job_key(case_id), 'execution', 'qe_state')
  return at[1] == execution and at[2] == 'leased'
end

local function drop_lease(case_id, execution)
  redis.call('ZREM', leases, case_id)
  redis.call('ZREM', started, job_id(case_id) .. ':' .. execution)
end

local function count(from)
  for i = from, #ARGV, 2 do redis.call('HINCRBYFLOAT', run, 'n:' .. ARGV[i], ARGV[i + 1]) end
end

-- The change that makes scored + dead reach the total sets DRAINED in the same step.
local function drain_if_done()
  local at = redis.call('HMGET', run, 'state', 'total', 'scored', 'dead')
  if at[1] == 'SEALED' and tonumber(at[3]) + tonumber(at[4]) >= tonumber(at[2]) then
    redis.call('HSET', run, 'state', 'DRAINED')
  end
end
