-- include: common
-- keys: workers
-- args: fresh_ms:number
-- The names of the workers with a fresh heartbeat.
return redis.call('ZRANGEBYSCORE', workers, now - fresh_ms, '+inf')
