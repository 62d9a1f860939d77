-- ARGV: 6 'ABORTED' or 'FINALIZED' → the state that stands there now, '' when there is no such run
local state = redis.call('HGET', run, 'state')
if not state then return '' end
if ARGV[6] == 'ABORTED' then
  if state == 'OPEN' or state == 'SEALED' then redis.call('HSET', run, 'state', 'ABORTED') end
  keep_alive()
  return redis.call('HGET', run, 'state')
end
-- FINALIZED only from DRAINED: a retry may have opened the run again meanwhile
if state == 'DRAINED' then
  state = 'FINALIZED'
  redis.call('HSET', run, 'state', state)
end
if state ~= 'FINALIZED' and state ~= 'ABORTED' then return state end
redis.call('SREM', 'rq:queues', ready)
for _, name in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  redis.call('SREM', 'rq:workers', 'rq:worker:' .. name)
  redis.call('DEL', 'rq:worker:' .. name)
end
local stay_s = redis.call('HGET', run, 'finalized_retention_s') or ARGV[5]
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], stay_s) end
return state
