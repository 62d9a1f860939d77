-- ARGV: 5 total → state
if redis.call('HGET', run, 'state') == 'OPEN' then
  redis.call('HSET', run, 'state', 'SEALED', 'total', ARGV[5])
  drain_if_done()
end
keep_alive()
return redis.call('HGET', run, 'state')
