-- How many calls may be in flight, for judges that get slow instead of refusing: found out by what the judge gets done.
-- A window is some answers, about as many as calls are in flight. More and fewer calls are tried in turn, and kept when
-- they bring more answers a second, or as many; fewer are allowed at once when calls time out, or are about to.
-- A user who starts many processes means them to call at once; but so many calls already make a small judge time out.
local MOST_FIRST = 16
local FIRST_ANSWERS, LEAST_ANSWERS = 6, 24 -- in a window: while the calls are doubled, and later
local ENOUGH_ANSWERS = 12 -- to conclude that calls are about to time out
local IDLE_MS = 1000 -- without a call in flight
local HOLD_WINDOWS = 1
local IN_VAIN = 3
local RAMP, RAMP_WORTH = 2, 1.1 -- times as many calls, and times as many answers that make them worth it
local PROBE, MORE_WORTH, LESS_WORTH = 1.5, 1.1, 0.97
local SLOW, TOO_SLOW = 0.25, 0.5 -- of the time after which a call is given up
local QUEUES, FORGOTTEN = 2, 1.02 -- times the least that calls took in the mean; times that, with each window
local CUT_TIMED_OUT, CUT_TOO_SLOW = 0.5, 0.7

-- `at`: when an answer came; nil: the window begins with the next answer, and leaves out time without one.
local function begin_window(state, at)
  state.window_at, state.window_ended, state.window_load, state.window_bound = at, 0, 0, 0
end

-- So many that, at the pace of this window, a call takes a fraction of the time it may take; and fewer than there were.
local function allow_fewer(state, now, cut, in_flight, timeout_s)
  local most = cut * math.min(state.most or math.huge, in_flight)
  if state.window_at and state.window_ended > 0 then
    local per_s = 1000 * state.window_ended / math.max(1, now - state.window_at)
    most = math.min(most, SLOW * timeout_s * per_s)
  end
  state.most, state.most_before, state.answers_per_s = math.max(1, math.floor(most)), nil, nil
  state.is_ramping, state.in_vain, state.hold_windows, state.is_first = 1, 0, HOLD_WINDOWS, nil
  begin_window(state, nil)
end

local function try(state, most, to)
  state.most_before, state.most = state.most, math.max(1, math.min(most or math.huge, to))
end
local function try_more(state, most)
  try(state, most, math.ceil(state.most * (state.is_ramping == 1 and RAMP or PROBE)))
end

-- A window of calls that the limit has held back is over. `most`: as configured.
local function judge_window(state, per_s, is_slow, is_near, most)
  state.is_first = nil
  local before = state.most_before
  if not before then
    state.answers_per_s = ((state.answers_per_s or per_s) + per_s) / 2
    if (state.hold_windows or 0) > 0 then
      state.hold_windows = state.hold_windows - 1
    elseif not is_slow and (state.is_ramping == 1 and not is_near or state.tried_less == 1) then
      state.tried_less = 0
      try_more(state, most)
    else
      state.tried_less = 1
      try(state, most, math.floor(state.most / PROBE))
    end
    return
  end
  local worth = state.most < before and LESS_WORTH or state.is_ramping == 1 and RAMP_WORTH or MORE_WORTH
  if per_s < worth * state.answers_per_s then
    if state.most > before then
      -- few answers prove little: the calls are doubled until that was in vain as often as this
      if state.is_ramping == 1 then state.in_vain = (state.in_vain or 0) + 1 end
      if (state.in_vain or 0) >= IN_VAIN then state.is_ramping = 0 end
      state.hold_windows = HOLD_WINDOWS -- what was too much is answered first
    end
    -- fewer calls bring fewer answers: it takes long by its nature, and nothing waits there that has to be answered first
    state.most = before
    if state.is_ramping == 1 and state.tried_less == 1 and not is_slow and (state.hold_windows or 0) == 0 then
      state.most_before, state.tried_less = nil, 0
      return try_more(state, most)
    end
  else
    state.answers_per_s = per_s
    if state.is_ramping == 1 and not is_slow then return try_more(state, most) end
  end
  state.most_before = nil
end

-- `ended`, since the last request: count, load (in sum: the part that each took of the time it may take), timeouts, and
-- the serial of the newest among them.
local function learn_in_flight(state, now, ended, fields)
  if state.in_flight > 0 or ended.count > 0 then state.idle_at = nil end
  if state.in_flight == 0 then state.idle_at = state.idle_at or now end
  local is_idle = state.idle_at and now - state.idle_at > IDLE_MS
  if is_idle or not state.window_ended then begin_window(state, nil) end
  if not state.most and fields.first_in_flight > 0 then
    -- other runs may know what they do: theirs go on
    state.most, state.is_ramping, state.is_first = math.max(fields.first_in_flight, state.in_flight), 1, 1
  end
  -- they join one after another
  if state.is_first and state.most then state.most = math.max(state.most, math.min(state.processes or 1, MOST_FIRST)) end
  local most = state.most_configured
  if fields.most_in_flight > 0 then most = math.min(most or math.huge, fields.most_in_flight) end
  if most then state.most = math.min(state.most or most, most) end
  if state.window_at then
    state.window_ended, state.window_load = state.window_ended + ended.count, state.window_load + ended.load
  end
  -- once for all calls that were released before: they met the old limit
  if ended.timeouts > 0 and ended.serial > (state.slow_serial or 0) then
    state.slow_serial = state.released or 0
    allow_fewer(state, now, CUT_TIMED_OUT, state.in_flight + ended.timeouts, fields.timeout_s)
    return
  end
  if not state.window_at then
    if ended.count > 0 then begin_window(state, now) end
    return
  end
  -- whole rounds: calls that began at once may end at once
  local calls = math.max(1, state.window_bound == 1 and state.most or state.in_flight)
  local rounds = state.is_ramping == 1 and math.max(FIRST_ANSWERS / calls, 1) or math.max(LEAST_ANSWERS / calls, 2)
  local answers = math.ceil(rounds) * calls
  if state.window_ended < answers or now <= state.window_at then return end
  local load = state.window_load / state.window_ended
  -- a judge that takes long by its nature gets no faster with fewer calls; what it once took is forgotten slowly
  -- to timing out: twice the calls might; the first answers have waited for few others
  local is_near = load > (state.is_first and SLOW or TOO_SLOW)
  state.least_load = math.min(load, (state.least_load or load) * FORGOTTEN)
  if load < QUEUES * state.least_load then load = 0 end
  local per_s = 1000 * state.window_ended / (now - state.window_at)
  if load > TOO_SLOW and state.window_ended >= ENOUGH_ANSWERS then
    allow_fewer(state, now, CUT_TOO_SLOW, state.in_flight + 1, fields.timeout_s)
    return
  end
  if state.most and state.window_bound == 1 then judge_window(state, per_s, load > SLOW, is_near, most) end
  begin_window(state, now)
end
