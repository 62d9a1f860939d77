-- One step of the limiter: refill, settle, enqueue, release every head that the buckets afford.
-- KEYS: 1 state (hash), 2 FIFO (list of "process|ticket|tokens"), 3 prefix of the grants lists (one per process)
-- ARGV: 1 process, 2 request rate /s, 3 request burst, 4 token rate /s, 5 token burst (rate 0: no such limit),
--       6 tokens to give back (negative: to charge), 7 generation of that settlement, 8 pause ms, 9 answers 429,
--       10 generation to begin if there is none, then ticket and tokens of each new waiter
-- → {generation, ms until the head may be released, FIFO length, own granted tickets…}
local state, fifo = KEYS[1], KEYS[2]
local process, request_rate, request_burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local token_rate, token_burst = tonumber(ARGV[4]), tonumber(ARGV[5])
local TTL_S = 86400
local GRANTS_TTL_S = 3600 -- the grants of a process that died; one that was stopped for a while finds them

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local at = redis.call('HMGET', state, 'generation', 'at', 'requests', 'tokens', 'paused_until')
local generation, requests, tokens, paused_until = at[1], tonumber(at[3]), tonumber(at[4]), tonumber(at[5]) or 0
if not generation then
  -- new, or the state was lost: nobody knows what was released just before, so the buckets begin empty
  generation, requests, tokens = ARGV[10], 0, 0
  redis.call('DEL', fifo)
else
  local elapsed_s = math.max(0, now - tonumber(at[2])) / 1000
  requests = math.min(request_burst, requests + elapsed_s * request_rate)
  tokens = math.min(token_burst, tokens + elapsed_s * token_rate)
end
if ARGV[7] == generation then tokens = math.min(token_burst, tokens + tonumber(ARGV[6])) end
if tonumber(ARGV[8]) > 0 then paused_until = math.max(paused_until, now + tonumber(ARGV[8])) end

for i = 11, #ARGV, 2 do redis.call('RPUSH', fifo, process .. '|' .. ARGV[i] .. '|' .. ARGV[i + 1]) end

local own, released, wait_ms = {}, 0, 0
while true do
  local head = redis.call('LINDEX', fifo, 0)
  if not head then break end
  local owner, ticket, cost = string.match(head, '^([^|]*)|([^|]*)|([^|]*)$')
  cost = tonumber(cost)
  local lack_requests = request_rate > 0 and (1 - requests) / request_rate or 0
  -- a call larger than the bucket goes when the bucket is full, and leaves debt
  local lack_tokens = token_rate > 0 and (math.min(cost, token_burst) - tokens) / token_rate or 0
  wait_ms = math.max(paused_until - now, lack_requests * 1000, lack_tokens * 1000, 0)
  if wait_ms > 0.001 then break end
  redis.call('LPOP', fifo)
  requests, tokens, released = requests - 1, tokens - cost, released + 1
  if owner == process then
    own[#own + 1] = ticket
  else
    redis.call('RPUSH', KEYS[3] .. owner, ticket)
    redis.call('EXPIRE', KEYS[3] .. owner, GRANTS_TTL_S)
  end
end

-- what other processes' pumps released for this one came earlier than what was released just now
local grants = redis.call('LRANGE', KEYS[3] .. process, 0, -1)
if #grants > 0 then redis.call('DEL', KEYS[3] .. process) end
for _, ticket in ipairs(own) do grants[#grants + 1] = ticket end

redis.call('HSET', state, 'generation', generation, 'at', string.format('%.3f', now), 'requests', string.format('%.6f', requests),
  'tokens', string.format('%.3f', tokens), 'paused_until', string.format('%.3f', paused_until))
if released > 0 then redis.call('HINCRBY', state, 'released', released) end
if tonumber(ARGV[9]) > 0 then redis.call('HINCRBY', state, 'count_429', ARGV[9]) end
redis.call('EXPIRE', state, TTL_S)
redis.call('EXPIRE', fifo, TTL_S)
local out = {generation, math.ceil(wait_ms), redis.call('LLEN', fifo)}
for _, ticket in ipairs(grants) do out[#out + 1] = ticket end
return out
