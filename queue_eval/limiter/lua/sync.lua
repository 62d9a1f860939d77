-- Synchronise one process with the limiter: refill → settle → pause or cut → enqueue → release every head that the buckets afford.
-- KEYS: 1 state (hash), 2 processes (hash), 3 lanes (zset, ms), 4 timeline (list),
--       then prefixes: 5 a lane (hash), 6 its FIFO (list of "process|ticket|input|output"),
--       7 grants of a process (list of "ticket|serial|ms|s that it may take to leave"), and the channel that wakes it;
--       8 shares (hash of "ms share"), 9 calls in flight (hash of "ms calls")
-- ARGV: 1 the request, JSON: process, name (of all its incarnations), takes_share, held_share, join, new, number, acked,
--       generation, fresh, lateness_s, silent_s (after which it is gone), in_flight,
--       ended {count, load, timeouts, serial},
--       back and late {requests, input, output}, refused {count, serial, pause_ms}, headers {dimension → per minute},
--       output_tokens (of an answer; 0: no news),
--       lane {name, fields {…of its hash}}, waiters [[ticket, input, output], …]
-- → JSON; {"forgotten": true} when the process must join again, with all its waiters
local STATE, PROCESSES, LANES, TIMELINE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LANE, FIFO, GRANTS, SHARES, IN_FLIGHT = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local request = cjson.decode(ARGV[1])

local GONE_MS = 10000
local CALLS_GONE_MS = 3000 -- a process with calls in flight looks each second
local LANE_LIVE_MS = 60000
local KEEP_S = 86400
local GRANTS_KEEP_S = 60
local SHARE, SHARE_KEEP_MS = 0.9, 5000 -- of the rate, for all together; a second more than a process may use its own
local SHARE_SILENT_MS, SHARES_LOOK_MS = 700, 200 -- together less than the second after which a process begins to use it
local HEADER_KEEP_MS = 120000
local PLAIN_PAUSE_MS = 1000
local SLOTS = 17280
local STEPPED_BACK_MS = 1000
local MOST = 1e15 -- a number of ours
local TAKES_AT_MOST_S = 60 -- a call, of the rate: what it takes beyond that is forgiven too
local FEW, MANY = 8, 256 -- heads read at first, and when those are gone

local now = clock_ms()

-- --- what is known -------------------------------------------------------------------------------------------------

-- Every Redis user of ours may write these keys, so a field may hold anything.
local function number(text)
  local value = text and tonumber(text)
  return value and math.abs(value) < MOST and value or nil
end
-- What is stored, as text, and the state in it; an empty one where that is not whole: as good as lost.
local function read_state()
  local state, stored, flat = {}, {}, redis.call('HGETALL', STATE)
  local is_whole = true
  for i = 1, #flat, 2 do
    local name, text = flat[i], flat[i + 1]
    stored[name], state[name] = text, (name == 'generation' or name == 'slot_lanes') and text or number(text)
    is_whole = is_whole and state[name] ~= nil
  end
  for _, d in ipairs(DIMENSIONS) do
    local is_limited = state['level_' .. d] and state['burst_' .. d] and state['limit_' .. d]
    is_whole = is_whole and (is_limited or not state['rate_' .. d])
  end
  is_whole = is_whole and (not state.cut_at or state.cut_from and state.cut_to)
    and state.at and state.computed_at and (state.computed_at == 0 or state.share_sum and state.share_count and state.share_silent)
  return is_whole and state or {}, stored
end
local state, stored = read_state()
local function is_time(name)
  return name == 'at' or string.find(name, '_at', 1, true) or string.find(name, '_until', 1, true)
    or string.find(name, '_since_', 1, true)
end
local function count(name, by) state[name] = (state[name] or 0) + by end

local function parse_process(record)
  if not record then return nil end
  local seen, step_number, lateness, silent_s, fresh = string.match(record, '^([%d.]+) (%d+) ([%d.]+) ([%d.]+) (%S+)$')
  local process = {seen = number(seen), number = number(step_number), lateness = number(lateness),
    silent_s = number(silent_s), fresh = fresh}
  return process.seen and process.number and process.lateness and process.silent_s and process or nil
end
local function read_process(name) return parse_process(redis.call('HGET', PROCESSES, name)) end

local function seen_later(key, by_ms)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local seen, rest = string.match(all[i + 1], '^([%d.]+)( .*)$')
    if number(seen) then redis.call('HSET', key, all[i], string.format('%.3f', number(seen) + by_ms) .. rest) end
  end
end

-- What was promised is not known any more; until it has ended, all of it may be in use.
local function lose_shares() state.share_unknown, state.share_unknown_until = SHARE, now + SHARE_KEEP_MS end

local me = read_process(request.process)
-- a Redis that came back from an older snapshot knows too little of this process
local rolled_back = me and request.number > me.number + 1
if not state.generation or rolled_back then
  -- new, or lost: what was released just before is unknown, so the buckets begin empty and all processes join again
  redis.call('DEL', STATE, PROCESSES, SHARES, IN_FLIGHT)
  stored, state, me = {}, {generation = request.fresh, at = now, computed_at = 0}, nil
  -- lost: processes that do not come back may be using the shares that they had
  if request.generation ~= '' then lose_shares() end
end
if not me and not request.join then return cjson.encode({forgotten = true}) end

-- Redis' clock has stepped back: what was to come stays as far away as it was
if state.at and state.at - now > STEPPED_BACK_MS then
  local by = state.at - now
  for name, value in pairs(state) do
    if is_time(name) and type(value) == 'number' then state[name] = value - by end
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', LANES, now, '+inf')) do redis.call('ZADD', LANES, now, name) end
  for _, key in ipairs({PROCESSES, SHARES, IN_FLIGHT}) do seen_later(key, -by) end
elseif state.at and now - state.at > SHARE_SILENT_MS + 1 then
  -- without any request for a while, or a clock that has stepped forward: all are silent, and no promise ends in that time
  seen_later(SHARES, now - state.at - SHARE_SILENT_MS - 1)
end

-- Whatever another hand has written binds for no longer than what is written here.
local BOUNDS = {
  cut_from = {0, 1}, cut_to = {LEAST_FACTOR, 1}, share_unknown = {0, SHARE}, released = {0, MOST},
  most = {1, MOST}, most_before = {1, MOST}, hold_windows = {0, HOLD_WINDOWS}, in_vain = {0, IN_VAIN},
  window_ended = {0, MOST}, window_load = {0, MOST}, answers_per_s = {0, 1e6}, least_load = {1e-4, 1},
}
for _, d in ipairs(DIMENSIONS) do BOUNDS['header_' .. d], BOUNDS['burst_' .. d] = {1, MOST}, {1, MOST} end
local function bounded(value, bounds) return math.min(math.max(value, bounds[1]), bounds[2]) end
local function latest(name)
  if name == 'share_unknown_until' then return now + SHARE_KEEP_MS end
  return now + (string.find(name, '_until', 1, true) and MOST_PAUSE_MS or STEPPED_BACK_MS)
end
for name, value in pairs(state) do
  if is_time(name) then
    if value > latest(name) then state[name] = now end
  elseif BOUNDS[name] then
    state[name] = bounded(value, BOUNDS[name])
  elseif name == 'cut_serial' or name == 'slow_serial' then
    state[name] = math.min(value, state.released or 0) -- each was the newest release
  end
end

-- --- lanes --------------------------------------------------------------------------------------------------------------

local function read_lane(name)
  local at = redis.call('HMGET', LANE .. name, 'weight', 'vtime', 'out_requests', 'out_input', 'out_output', 'in_requests', 'in_input', 'in_output', 'queue', 'configured')
  local weight = bounded(number(at[1]) or 1, {0.001, 1e6})
  -- from the virtual time, for idle time is not saved up, to what one call can have taken
  local vtime = state.vtime or 0
  return {name = name, fifo = FIFO .. name, weight = weight,
    vtime = bounded(number(at[2]) or 0, {vtime, vtime + TAKES_AT_MOST_S / weight}),
    out = {number(at[3]) or 0, number(at[4]) or 0, number(at[5]) or 0},
    into = {number(at[6]) or 0, number(at[7]) or 0, number(at[8]) or 0}, queue = at[9] or '', configured = at[10]}
end
local function write_lane(lane)
  redis.call('HSET', LANE .. lane.name, 'vtime', lane.vtime, 'out_requests', lane.out[1], 'out_input', lane.out[2], 'out_output', lane.out[3],
    'in_requests', lane.into[1], 'in_input', lane.into[2], 'in_output', lane.into[3], 'queue', lane.queue)
end

local own_lane = read_lane(request.lane.name)
-- another hand has put calls into the queue, taken some out, or the run's settings: it begins anew, and its processes join
-- again with theirs
if not own_lane.configured or own_lane.into[1] - own_lane.out[1] ~= redis.call('LLEN', own_lane.fifo) then
  redis.call('DEL', own_lane.fifo)
  own_lane.out, own_lane.queue = {unpack(own_lane.into)}, request.fresh
  write_lane(own_lane)
end

-- the reply to this very request was lost: what it asked for is done already
local repeated = me and me.number == request.number and me.fresh == request.fresh
local seen_now = string.format('%.3f %d %.4f %.3f %s', now, request.number, request.lateness_s, request.silent_s, request.fresh)
redis.call('HSET', PROCESSES, request.process, seen_now)
redis.call('ZADD', LANES, now, request.lane.name)

local function limited(d) return (state['rate_' .. d] or 0) > 0 end

-- --- shares of the rate for when Redis is away -----------------------------------------------------------------------

-- A share is a promise with an end: its process may use it from a second after it was last seen, as long as it is kept.
-- What is released here is the part of those that are not silent: with what is promised to the others it is less than
-- all, and leaves room for the calls that each of them may have saved up.
local function read_share(record)
  local seen, share = string.match(record or '', '^([%d.]+) ([%d.]+)$')
  return tonumber(seen) or 0, math.min(tonumber(share) or 0, SHARE)
end
local function look_at_shares()
  state.share_sum, state.share_silent, state.share_count, state.shares_at = 0, 0, 0, now
  local all = redis.call('HGETALL', SHARES)
  for i = 1, #all, 2 do
    local seen, share = read_share(all[i + 1])
    local silent_ms = now - seen
    if silent_ms > SHARE_KEEP_MS or silent_ms < -STEPPED_BACK_MS then
      redis.call('HDEL', SHARES, all[i])
    else
      state.share_sum, state.share_count = state.share_sum + share, state.share_count + 1
      if silent_ms > SHARE_SILENT_MS then state.share_silent = state.share_silent + share end
    end
  end
end
local function share_unknown()
  return now < (state.share_unknown_until or 0) and state.share_unknown or 0
end
local function released_here() return math.max(0, 1 - ((state.share_silent or 0) + share_unknown()) / SHARE) end
-- Each of them may send one whole call at the wrong moment: together no more than what SHARE leaves of a window.
local function most_sharers()
  local calls = math.huge
  for _, d in ipairs(DIMENSIONS) do
    local largest = math.max(1, state['largest_' .. d] or 0, state['largest_before_' .. d] or 0)
    if limited(d) then calls = math.min(calls, state['limit_' .. d] * request.lane.fields.window_s / 60 / largest) end
  end
  return math.max(1, math.floor((1 - SHARE) * calls + 1e-9))
end
local function promise()
  local record = redis.call('HGET', SHARES, request.name)
  local seen, before = read_share(record)
  if request.join and not repeated and request.held_share > before then
    -- it was promised by a state that is lost; so may others have been
    if now >= (state.share_unknown_until or 0) then lose_shares() end
    state.share_unknown = math.max(0, state.share_unknown - request.held_share)
  end
  if math.abs(now - (state.shares_at or 0)) >= SHARES_LOOK_MS then
    redis.call('HSET', SHARES, request.name, string.format('%.3f %.6f', now, before)) -- it is not silent
    look_at_shares()
  elseif not record then
    state.share_count = state.share_count + 1
  elseif state.shares_at - seen > SHARE_SILENT_MS then
    -- the last look has taken it for silent
    state.share_silent = math.max(0, state.share_silent - before)
  end
  local share, left = 0, SHARE - (state.share_sum - before) - share_unknown()
  if request.takes_share then
    local sharers = most_sharers()
    if state.share_count <= sharers then
      share = math.max(0, math.min(SHARE / state.share_count, left))
    elseif SHARE / sharers <= left + 1e-9 then
      share = SHARE / sharers
    end
  end
  share = math.floor(share * 1e6) / 1e6
  -- should this reply be lost, the process goes on with what it was promised before
  local kept = request.generation == state.generation and math.max(share, request.held_share) or share
  state.share_sum = state.share_sum - before + kept
  redis.call('HSET', SHARES, request.name, string.format('%.3f %.6f', now, kept))
  return share
end

local function factor()
  if not state.cut_at then return 1 end
  local from = math.max(state.cut_at, (state.paused_until or 0) - PAUSE_COUNTED_S * 1000)
  return recovered(state.cut_from, state.cut_to, (now - from) / 1000)
end

-- --- refill, settle ------------------------------------------------------------------------------------------------

local elapsed_s, share = math.max(0, now - state.at) / 1000, factor() * released_here()
local own_share = promise()
for _, d in ipairs(DIMENSIONS) do
  if limited(d) then
    state['level_' .. d] = math.min(state['burst_' .. d], state['level_' .. d] + elapsed_s * state['rate_' .. d] * share)
  end
end
local current, slot_lanes = request.generation == state.generation, {}
local is_json, released_by = pcall(cjson.decode, state.slot_lanes or '{}')
for name, calls in pairs(is_json and type(released_by) == 'table' and released_by or {}) do
  if type(calls) == 'number' and math.abs(calls) < MOST then slot_lanes[name] = calls end
end
local function give(back)
  for d, amount in pairs(amounts(back.input, back.output, back.requests)) do
    if limited(d) then
      state['level_' .. d] = state['level_' .. d] + amount
      count('slot_used_' .. d, -amount)
    end
  end
  -- permits whose calls never left: the counters are of calls
  if back.requests > 0 then
    count('given_back', back.requests)
    count('slot_released', -back.requests)
    slot_lanes[request.lane.name] = (slot_lanes[request.lane.name] or 0) - back.requests
  end
end
local function cap()
  for _, d in ipairs(DIMENSIONS) do
    if limited(d) then state['level_' .. d] = math.min(state['burst_' .. d], state['level_' .. d]) end
  end
end
-- A provider forgets what a call took when its window is over, however much that was; until then it may be given back.
local function forgive()
  local window_s = request.lane.fields.window_s
  for _, d in ipairs(DIMENSIONS) do
    local most_debt, since = limited(d) and state['limit_' .. d] * window_s / 60, state['debt_since_' .. d]
    if not most_debt or state['level_' .. d] >= -most_debt then
      state['debt_since_' .. d] = nil
    elseif not since then
      state['debt_since_' .. d] = now
    elseif now - since >= window_s * 1000 then
      state['level_' .. d], state['debt_since_' .. d] = -most_debt, nil
    end
  end
end
if current and not repeated then
  -- the provider's window has forgotten what these were charged for: they fill the bucket and no more
  give(request.late)
  cap()
  -- these may serve waiting calls beyond the burst; what no call takes is cut off below
  give(request.back)
end

-- --- pause and cut: they bind all waiting calls ----------------------------------------------------------------------

-- an answer that names a lower limit than the one in force has explained itself: no guess is needed
local function lowered_by(headers)
  for d, limit in pairs(headers) do
    if limit < (state['limit_' .. d] or math.huge) then return true end
  end
  return false
end

local refused = request.refused
if refused.count > 0 and not repeated then
  local pause_ms = math.min(refused.pause_ms, MOST_PAUSE_MS)
  -- one cut per episode: calls that were released before it met the old rate
  if current and refused.serial > (state.cut_serial or 0) then
    state.cut_serial = state.released or 0
    if not lowered_by(request.headers) then
      local from = factor()
      state.cut_from, state.cut_to, state.cut_at = from, math.max(LEAST_FACTOR, from * CUT), now
      count('cuts', 1)
      count('slot_cuts', 1)
    end
    if pause_ms <= 0 then pause_ms = PLAIN_PAUSE_MS end
  end
  if not current and request.generation ~= '' and pause_ms <= 0 then pause_ms = PLAIN_PAUSE_MS end
  local was = math.max(math.min(state.paused_until or 0, now + MOST_PAUSE_MS), now)
  state.paused_until = math.max(was, now + pause_ms)
  if was == now and pause_ms > 0 then count('pauses', 1) end
  count('slot_paused_ms', state.paused_until - was)
  count('refused', refused.count)
  count('slot_refused', refused.count)
end

-- --- calls in flight -------------------------------------------------------------------------------------------------

local function parse_in_flight(record)
  local seen, calls = string.match(record or '', '^([%d.]+) (%d+)$')
  return tonumber(seen) or 0, tonumber(calls) or 0
end
local function read_in_flight(name) return parse_in_flight(redis.call('HGET', IN_FLIGHT, name)) end
local function write_in_flight(name, seen, calls)
  redis.call('HSET', IN_FLIGHT, name, string.format('%.3f %d', seen, calls))
end
-- what a process has, and what it was released and has not is_alive of
local function note_in_flight()
  local own = GRANTS .. request.process
  local unread = redis.call('LLEN', own)
  if not repeated then unread = math.max(0, unread - request.acked) end
  local _, before = read_in_flight(request.name)
  count('in_flight', request.in_flight + unread - before)
  write_in_flight(request.name, now, request.in_flight + unread)
end
-- The counter is kept step by step; what has gone wrong in it, by whatever hand, is gone within a second. A process
-- that is silent for a while has its calls at the judge all the same.
local function sum_in_flight()
  state.in_flight = 0
  local all = redis.call('HGETALL', IN_FLIGHT)
  for i = 1, #all, 2 do
    local seen, calls = parse_in_flight(all[i + 1])
    if now - seen > CALLS_GONE_MS or seen - now > STEPPED_BACK_MS then
      redis.call('HDEL', IN_FLIGHT, all[i])
    else
      count('in_flight', calls)
    end
  end
end
note_in_flight()
if not repeated then
  local ended = request.ended
  if not current then ended.timeouts = 0 end
  learn_in_flight(state, now, ended, request.lane.fields)
end

-- --- join, headers, enqueue ----------------------------------------------------------------------------------------

local dirty = state.dirty
local lane_key = LANE .. request.lane.name
if request.join and not repeated then
  dirty = 1
  -- new, or come back with other limits; else it keeps what it was tuned to
  -- a process that was only forgotten brings nothing new
  local known = own_lane.configured
  redis.call('HSET', lane_key, 'most_in_flight', request.lane.fields.most_in_flight)
  if not known or (request.new and known ~= request.lane.fields.configured) then
    redis.call('HDEL', lane_key, 'limit_requests', 'limit_input', 'limit_output', 'limit_tokens')
    for field, value in pairs(request.lane.fields) do redis.call('HSET', lane_key, field, value) end
  end
end
if request.output_tokens > 0 then state.output_tokens = request.output_tokens end
-- the newest word of any process counts, for as long as some process reads it
for d, limit in pairs(request.headers) do
  if state['header_' .. d] ~= limit then state['header_' .. d], dirty = limit, 1 end
  state['header_at_' .. d] = now
end
for _, d in ipairs(DIMENSIONS) do
  if state['header_' .. d] and now - (state['header_at_' .. d] or 0) > HEADER_KEEP_MS then
    state['header_' .. d], state['header_at_' .. d], dirty = nil, nil, 1
  end
end

if now - (state.largest_at or 0) > LANE_LIVE_MS then
  for _, d in ipairs(DIMENSIONS) do state['largest_before_' .. d], state['largest_' .. d] = state['largest_' .. d] or 0, 0 end
  state.largest_at = now
end
local base
if not repeated and #request.waiters > 0 then
  local lane = own_lane
  base = {unpack(lane.into)}
  local entries = {}
  for _, waiter in ipairs(request.waiters) do
    entries[#entries + 1] = string.format('%s|%s|%d|%d', request.process, waiter[1], waiter[2], waiter[3])
    if #entries == 1000 then redis.call('RPUSH', lane.fifo, unpack(entries)); entries = {} end
    lane.into = {lane.into[1] + 1, lane.into[2] + waiter[2], lane.into[3] + waiter[3]}
    for d, amount in pairs(amounts(waiter[2], waiter[3])) do
      if amount > (state['largest_' .. d] or 0) then
        state['largest_' .. d] = amount
        if limited(d) and amount > math.max(state['burst_' .. d], state['largest_before_' .. d] or 0) then dirty = 1 end
      end
    end
  end
  if #entries > 0 then redis.call('RPUSH', lane.fifo, unpack(entries)) end
  write_lane(lane)
end

-- --- buckets: the strictest of the live runs' limits and the provider's headers ---------------------------------------

local function strictest(d, jitter_s)
  local burst, rate, limit
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', LANES, now - LANE_LIVE_MS, '+inf')) do
    local at = redis.call('HMGET', LANE .. name, 'limit_' .. d, 'window', 'window_s', 'burst', 'headers')
    local own = math.min(number(at[1]) or math.huge, at[5] ~= '0' and state['header_' .. d] or math.huge)
    local window_s, own_burst = bounded(number(at[3]) or 60, WINDOW_S), number(at[4]) or 0
    if own > 0 and own < math.huge then
      local largest = math.max(state['largest_' .. d] or 0, state['largest_before_' .. d] or 0)
      local b, r = bucket(d, own, {window = at[2], window_s = window_s, burst = own_burst}, jitter_s, largest)
      burst, rate, limit = math.min(burst or b, b), math.min(rate or r, r), math.min(limit or own, own)
    end
  end
  return burst, rate, limit
end

local function most_configured()
  local most
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', LANES, now - LANE_LIVE_MS, '+inf')) do
    local own = number(redis.call('HGET', LANE .. name, 'most_in_flight') or 0) or 0
    if own > 0 then most = math.min(most or own, own) end
  end
  return most
end

-- what leaves later than the buckets allow for is given back: they learn of it at once
if dirty or request.lateness_s > math.max(LEAST_JITTER_S, state.jitter_s or 0) or now - (state.computed_at or 0) >= 1000 then
  local live, jitter_s = 0, 0
  local all = redis.call('HGETALL', PROCESSES)
  for i = 1, #all, 2 do
    local process = parse_process(all[i + 1])
    if not process or now - process.seen > GONE_MS or process.seen - now > STEPPED_BACK_MS then
      redis.call('HDEL', PROCESSES, all[i])
    else
      live, jitter_s = live + 1, math.max(jitter_s, process.lateness)
    end
  end
  local ahead = redis.call('ZRANGEBYSCORE', LANES, now + STEPPED_BACK_MS, '+inf')
  for _, name in ipairs(ahead) do redis.call('ZREM', LANES, name) end
  sum_in_flight()
  state.most_configured = most_configured()
  state.processes, state.jitter_s, state.computed_at, state.dirty = live, jitter_s, now, nil
  for _, d in ipairs(DIMENSIONS) do
    local burst, rate, limit = strictest(d, jitter_s)
    -- a limit that is new begins empty; a burst that shrinks takes at once what it had room for, and leaves what was given back beyond it
    local level, room = limited(d) and state['level_' .. d] or 0, state['burst_' .. d] or 0
    state['level_' .. d] = rate and math.min(level, burst + math.max(0, level - room)) or nil
    state['burst_' .. d], state['rate_' .. d], state['limit_' .. d] = burst, rate, limit
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', LANES, '-inf', now - KEEP_S * 1000)) do
    redis.call('DEL', LANE .. name, FIFO .. name)
    redis.call('ZREM', LANES, name)
  end
end

-- --- release ---------------------------------------------------------------------------------------------------------

share = factor() * released_here()
local is_alive = {[request.process] = true}
local function listens(owner)
  if is_alive[owner] == nil then
    local process = read_process(owner)
    is_alive[owner] = process ~= nil and now - process.seen <= process.silent_s * 1000
    -- it finds itself forgotten and joins again: what is left of its tickets leads nowhere
    if process and not is_alive[owner] then redis.call('HDEL', PROCESSES, owner) end
  end
  return is_alive[owner]
end

local function pass_head(lane)
  local charge = lane.head
  lane.out = {lane.out[1] + 1, lane.out[2] + charge.input, lane.out[3] + charge.output}
  lane.next, lane.head, lane.changed = lane.next + 1, nil, true
end

local function trim(lane)
  if lane.next > 1 then redis.call('LTRIM', lane.fifo, lane.next - 1, -1) end
end

local function find_head(lane)
  while not lane.head do
    local entry = lane.heads[lane.next]
    if not entry then
      trim(lane)
      lane.heads, lane.next, lane.many = redis.call('LRANGE', lane.fifo, 0, (lane.many or FEW) - 1), 1, MANY
      entry = lane.heads[1]
      if not entry then
        lane.empty = true
        return false
      end
    end
    local owner, ticket, input, output = string.match(entry, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    if number(input) and number(output) then
      lane.head = amounts(number(input), number(output))
      lane.head.owner, lane.head.ticket = owner, ticket
      if not listens(owner) then pass_head(lane) end
    else
      lane.next = lane.next + 1 -- no entry of ours
    end
  end
  return true
end

local lanes = {}
-- what waits in a lane without live processes belongs to none
for _, name in ipairs(redis.call('ZRANGEBYSCORE', LANES, now - LANE_LIVE_MS, '+inf')) do
  local lane = read_lane(name)
  lane.heads, lane.next = {}, 1
  lanes[#lanes + 1] = lane
end

-- weighted fair queueing: the lane whose next call begins first in virtual time
local function next_lane()
  local first
  for _, lane in ipairs(lanes) do
    if not lane.empty and find_head(lane) and (not first or lane.vtime < first.vtime or (lane.vtime == first.vtime and lane.name < first.name)) then first = lane end
  end
  return first
end

local function affordable(charge)
  for _, d in ipairs(DIMENSIONS) do
    -- a call larger than the bucket goes when the bucket is full, and leaves debt
    if limited(d) and math.min(charge[d], state['burst_' .. d]) - state['level_' .. d] > 1e-6 then return false end
  end
  return true
end

local may_take_s = allowed_s(state.jitter_s or 0)
local grants, is_full = {}, false
while now >= (state.paused_until or 0) do
  local lane = next_lane()
  if not lane or not affordable(lane.head) then break end
  -- of a state that was lost it is unknown what processes have in flight that have not come back
  if state.most and (state.in_flight >= state.most or share_unknown() > 0) then
    is_full, state.window_bound = true, 1
    break
  end
  count('in_flight', 1)
  local charge, took_s = lane.head, 0
  for _, d in ipairs(DIMENSIONS) do
    if limited(d) then
      state['level_' .. d] = state['level_' .. d] - charge[d]
      count('slot_used_' .. d, charge[d])
      took_s = math.max(took_s, charge[d] / state['rate_' .. d])
    end
  end
  count('released', 1)
  count('slot_released', 1)
  slot_lanes[lane.name] = (slot_lanes[lane.name] or 0) + 1
  grants[charge.owner] = grants[charge.owner] or {}
  table.insert(grants[charge.owner], string.format('%s|%d|%.3f|%.4f', charge.ticket, state.released, now, may_take_s))
  state.vtime = lane.vtime
  lane.vtime = lane.vtime + math.min(took_s > 0 and took_s or 0.001, TAKES_AT_MOST_S) / lane.weight
  pass_head(lane)
end

cap()
forgive()

local waiting = 0
for _, lane in ipairs(lanes) do
  trim(lane)
  if lane.changed then write_lane(lane) end
  waiting = waiting + redis.call('LLEN', lane.fifo)
end

-- grants stay until their process acknowledges them: a reply may be lost
local own = GRANTS .. request.process
if request.acked > 0 and not repeated then redis.call('LTRIM', own, request.acked, -1) end
for owner, tickets in pairs(grants) do
  for i = 1, #tickets, 1000 do redis.call('RPUSH', GRANTS .. owner, unpack(tickets, i, math.min(i + 999, #tickets))) end
  redis.call('EXPIRE', GRANTS .. owner, GRANTS_KEEP_S)
  local name = string.match(owner, '^(.*)%.%d+$') or owner -- of all its incarnations
  local seen, calls = read_in_flight(name)
  write_in_flight(name, seen, calls + #tickets)
  -- it may sleep; a Redis user that may not publish does without
  if name ~= request.name then redis.pcall('PUBLISH', GRANTS .. name, '') end
end

-- --- the timeline, then everything is written ---------------------------------------------------------------------------

local slot = math.floor(now / SLOT_MS)
if state.slot and state.slot ~= slot then
  local row = {at = state.slot * SLOT_MS / 1000, released = state.slot_released or 0, refused = state.slot_refused or 0, cuts = state.slot_cuts or 0,
    paused_ms = state.slot_paused_ms or 0, waiting = waiting, factor = share, lanes = slot_lanes, used = {}, limits = {}}
  for _, d in ipairs(DIMENSIONS) do
    if limited(d) then row.used[d], row.limits[d] = state['slot_used_' .. d] or 0, state['limit_' .. d] end
    state['slot_used_' .. d] = nil
  end
  redis.call('RPUSH', TIMELINE, cjson.encode(row))
  redis.call('LTRIM', TIMELINE, -SLOTS, -1)
  slot_lanes, state.slot_released, state.slot_refused, state.slot_cuts, state.slot_paused_ms = {}, nil, nil, nil, nil
end
state.slot, state.slot_lanes, state.at = slot, cjson.encode(slot_lanes), now

local fields = {}
for name, value in pairs(state) do
  local text = type(value) == 'number' and string.format('%.15g', value) or value
  if stored[name] ~= text then
    fields[#fields + 1] = name
    fields[#fields + 1] = text
  end
end
if #fields > 0 then redis.call('HSET', STATE, unpack(fields)) end
for name in pairs(stored) do
  if state[name] == nil then redis.call('HDEL', STATE, name) end
end
if state.computed_at == now then
  for _, key in ipairs({STATE, PROCESSES, SHARES, IN_FLIGHT, LANES, TIMELINE, lane_key, FIFO .. request.lane.name}) do
    redis.call('EXPIRE', key, KEEP_S)
  end
end

local lane = read_lane(request.lane.name)
local reply = {generation = state.generation, now_ms = now, processes = state.processes or 1, paused_ms = math.max(0, (state.paused_until or 0) - now),
  base = base or lane.into, out = lane.out, queue = lane.queue, share = own_share, is_full = is_full, is_bounded = state.most ~= nil,
  output_tokens = state.output_tokens or 0,
  grants = redis.call('LRANGE', own, 0, -1), window_s = request.lane.fields.window_s,
  level = {}, burst = {}, rate = {}, limit = {}, alone = {}}
for _, d in ipairs(DIMENSIONS) do
  if limited(d) then
    reply.alone[d] = state['rate_' .. d] * factor() * own_share
    reply.level[d], reply.burst[d], reply.rate[d], reply.limit[d] = state['level_' .. d], state['burst_' .. d], state['rate_' .. d] * share, state['limit_' .. d]
  end
end
return cjson.encode(reply)
