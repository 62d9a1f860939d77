-- ARGV: 6 total → state
if redis.call('HGET', run, 'state') == 'OPEN' then
  redis.call('HSET', run, 'state', 'SEALED', 'total', ARGV[6])
  drain_if_done()
end
keep_alive()
return redis.call('HGET', run, 'state')
