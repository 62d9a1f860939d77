-- FINALIZED only from DRAINED: a retry may have opened the run again meanwhile
if redis.call('HGET', run, 'state') == 'DRAINED' then redis.call('HSET', run, 'state', 'FINALIZED') end
if redis.call('HGET', run, 'state') ~= 'FINALIZED' then return 0 end
redis.call('SREM', 'rq:queues', ready)
for _, name in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  redis.call('SREM', 'rq:workers', 'rq:worker:' .. name)
  redis.call('DEL', 'rq:worker:' .. name)
end
local stay_s = redis.call('HGET', run, 'finalized_retention_s') or ARGV[5]
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], stay_s) end
return 1
