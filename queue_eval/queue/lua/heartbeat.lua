-- ARGV: 6 lease ms, 7 worker, then case id and execution for each case in flight → executions that hold nothing any more
local now, lost = now_ms(), {}
for i = 8, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', leases, now + tonumber(ARGV[6]), ARGV[i])
  else
    lost[#lost + 1] = ARGV[i + 1]
    lost[#lost + 1] = ARGV[i]
  end
end
redis.call('ZADD', workers, now, ARGV[7])
keep_alive()
return lost
