-- Shared by every script of the queue, after clock.lua; see docs/reference/keys.md for the types.
-- KEYS: 1 run (hash), 2 leases (zset, ms), 3 workers (zset, ms), 4 ready (list), 5 delayed (zset, s),
--       6 started (zset, +inf), 7 finished (zset, +inf), 8 failed (zset, +inf), 9 the queue's workers (set),
--       10 quarantined (list), 11 claimed (hash)
-- ARGV: 1 prefix of the job hashes, 2 prefix of the job ids, 3 retention in seconds of a new run, 4 wall time for RQ's date fields,
--       5 retention in seconds of a new run once it is finalized, then the script's own
-- Job hashes are named from what the lists hold, so a run lives on one Redis node (no Redis Cluster).
local run, leases, workers, ready, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local started, finished, failed, quarantined, claimed = KEYS[6], KEYS[7], KEYS[8], KEYS[10], KEYS[11]
local job_prefix, id_prefix, wall = ARGV[1], ARGV[2], ARGV[4]
local retention_s = redis.call('HGET', run, 'retention_s') or ARGV[3]
local QUARANTINE_AFTER = 2 -- crashes; the same stands in core/attempt.py
local OVERHEAD_BYTES = 1600 -- a metric's own prompt: a case's duration goes with its size and this

local function job_key(case_id) return job_prefix .. case_id end
local function job_id(case_id) return id_prefix .. case_id end
local function case_of(job) return string.sub(job, #id_prefix + 1) end

-- Registries and lists come and go with their members, so their lifetime is set again and again.
local function keep_alive()
  if redis.call('HGET', run, 'state') == 'FINALIZED' then return end -- these may go
  for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], retention_s) end
end

-- A case has one execution under way, or two when a straggler was dispatched again.
local function holds(case_id, execution)
  local at = redis.call('HMGET', job_key(case_id), 'qe_state', 'execution', 'second')
  return at[1] == 'leased' and (at[2] == execution or at[3] == execution)
end

local function lease(case_id, execution, until_ms)
  redis.call('ZADD', leases, until_ms, case_id .. ':' .. execution)
end

local function drop_lease(case_id, execution)
  redis.call('ZREM', leases, case_id .. ':' .. execution)
  redis.call('ZREM', started, job_id(case_id) .. ':' .. execution)
end

-- Counts for people and for the pace. Every Redis user of ours may write them: what is no number begins anew.
local function add(field, by)
  local reply = redis.pcall('HINCRBYFLOAT', run, field, by)
  if type(reply) == 'table' and reply.err then redis.call('HSET', run, field, by) end
end

-- Ends one execution. True when another one of the same case goes on.
local function leave_to_other(case_id, execution)
  drop_lease(case_id, execution)
  local at = redis.call('HMGET', job_key(case_id), 'execution', 'second')
  if not at[2] then return false end
  if at[1] == execution then redis.call('HSET', job_key(case_id), 'execution', at[2]) end
  redis.call('HDEL', job_key(case_id), 'second')
  add('hedging', -1)
  return true
end

-- To the front. Who has crashed often waits apart: it must not take others along.
local function make_ready(case_id, status)
  redis.call('HSET', job_key(case_id), 'qe_state', 'ready', 'status', status)
  if tonumber(redis.call('HGET', job_key(case_id), 'crashes') or 0) >= QUARANTINE_AFTER then
    redis.call('RPUSH', quarantined, job_id(case_id))
  else
    redis.call('LPUSH', ready, job_id(case_id))
  end
end

local function count(from)
  for i = from, #ARGV, 2 do add('n:' .. ARGV[i], ARGV[i + 1]) end
end

-- The change that makes scored + dead reach the total sets DRAINED in the same step.
local function drain_if_done()
  local at = redis.call('HMGET', run, 'state', 'total', 'scored', 'dead')
  if at[1] == 'SEALED' and tonumber(at[3]) + tonumber(at[4]) >= tonumber(at[2]) then
    redis.call('HSET', run, 'state', 'DRAINED')
  end
end

-- A run that had ended has work again: it goes on, and no worker may leave.
local function reopen()
  local state = redis.call('HGET', run, 'state')
  if state ~= 'DRAINED' and state ~= 'FINALIZED' then return end
  redis.call('HSET', run, 'state', 'SEALED')
  redis.call('SADD', 'rq:queues', ready)
end

-- A worker is in contact. When none has been for a while, Redis was away or all are dead, and live workers get time to come
-- back before its leases are taken: an outage is no crash. Half a lease is enough: heartbeats are tried every second meanwhile.
local function in_contact(lease_ms, now)
  if redis.call('HEXISTS', run, 'state') == 0 then return end -- wiped: nothing must look like a run
  local seen = tonumber(redis.call('HGET', run, 'contact_ms') or now)
  if now - seen > lease_ms / 2 then redis.call('HSET', run, 'reap_from_ms', now + lease_ms / 2) end
  redis.call('HSET', run, 'contact_ms', now)
end
