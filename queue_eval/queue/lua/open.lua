-- ARGV: 6 manifest identity, 7 random epoch → {identity, state} that stand there now
if redis.call('HEXISTS', run, 'state') == 0 then
  redis.call('HSET', run, 'manifest', ARGV[6], 'epoch', ARGV[7], 'state', 'OPEN', 'scored', 0, 'dead', 0, 'executions', 0,
    'retention_s', ARGV[3], 'finalized_retention_s', ARGV[5])
  retention_s = ARGV[3]
end
redis.call('SADD', 'rq:queues', ready)
keep_alive()
return redis.call('HMGET', run, 'manifest', 'state')
