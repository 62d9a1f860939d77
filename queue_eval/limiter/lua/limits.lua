-- From limits to buckets, and the controller's share of them. core/bucket.py has the same, with the reasons.
local DIMENSIONS = {'requests', 'input', 'output', 'tokens'}
local TICK_S, LEAST_JITTER_S, MOST_JITTER_S, BELOW_ONE = 0.02, 0.05, 2, 0.99
local CUT, LEAST_FACTOR, RETURN_S, CLIMB_S, PAUSE_COUNTED_S = 0.9, 0.02, 8, 14, 2

-- how late a release may leave its process
local function allowed_s(jitter_s) return math.min(math.max(jitter_s, LEAST_JITTER_S), MOST_JITTER_S) end

-- → burst, rate per second
local function bucket(dimension, limit_per_minute, counting, jitter_s, largest)
  local window_s = counting.window_s
  local limit = limit_per_minute * window_s / 60
  jitter_s = allowed_s(jitter_s)
  local requests = dimension == 'requests'
  local own_burst = requests and counting.burst > 0 and counting.burst
  if counting.window == 'bucket' then
    local rate = limit / window_s
    return math.max(1, (own_burst or rate) - rate * jitter_s), rate
  end
  if requests then
    local wanted = own_burst or math.min(math.max(2, TICK_S * limit / window_s), limit / 50)
    local burst = math.max(1, math.min(wanted, limit / 2))
    local spare = limit >= 1 and math.floor(limit + 1e-6) + BELOW_ONE - burst or limit
    return burst, spare / (window_s + jitter_s)
  end
  local burst = math.max(1, limit / 100, math.min(largest + TICK_S * limit / window_s, limit / 2))
  local spare = limit > 2 and limit - burst or limit / 2
  return burst, spare / (window_s + jitter_s)
end

local function recovered(cut_from, cut_to, since_s)
  local left = math.max(0, 1 - math.max(0, since_s) / RETURN_S)
  local climbed = math.max(0, since_s - RETURN_S) / CLIMB_S
  return math.min(1, cut_from - (cut_from - cut_to) * left ^ 5 + climbed ^ 5)
end

local function amounts(input, output, requests)
  return {requests = requests or 1, input = input, output = output, tokens = input + output}
end
