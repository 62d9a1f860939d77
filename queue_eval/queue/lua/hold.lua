-- ARGV: 6 reason → 1 when there is such a run
if redis.call('HEXISTS', run, 'state') == 0 then return 0 end
redis.call('HSET', run, 'hold', ARGV[6])
return 1
