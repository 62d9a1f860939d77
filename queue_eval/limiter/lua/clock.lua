-- The only clock of the limiter: processes' clocks differ, and some are wrong.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end
