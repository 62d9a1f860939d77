-- ARGV: 6 lease ms, 7 worker, then case id and execution for each case in flight → executions that hold nothing any more
local now, lost = now_ms(), {}
in_contact(tonumber(ARGV[6]), now)
for i = 8, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    lease(ARGV[i], ARGV[i + 1], now + tonumber(ARGV[6]))
  else
    lost[#lost + 1] = ARGV[i + 1]
    lost[#lost + 1] = ARGV[i]
  end
end
redis.call('ZADD', workers, now, ARGV[7])
keep_alive()
return lost
