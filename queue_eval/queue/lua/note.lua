-- ARGV: 6 field of the run, 7 value → 1 when there is such a run
if redis.call('HEXISTS', run, 'state') == 0 then return 0 end
redis.call('HSET', run, ARGV[6], ARGV[7])
return 1
