-- ARGV: 5 manifest identity, 6 random epoch, 7 RQ's name of the queue key → {identity, state} that stand there now
if redis.call('EXISTS', run) == 0 then
  redis.call('HSET', run, 'manifest', ARGV[5], 'epoch', ARGV[6], 'state', 'OPEN', 'scored', 0, 'dead', 0, 'executions', 0)
end
redis.call('SADD', 'rq:queues', ready)
keep_alive()
return redis.call('HMGET', run, 'manifest', 'state')
