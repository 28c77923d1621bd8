-- include: common
-- keys: workers records
-- args: name record fresh_ms:number
-- This worker is alive now; with an empty record, it is starting. Those whose last heartbeat is not fresh any more are
-- forgotten.
for _, stale in ipairs(redis.call('ZRANGEBYSCORE', workers, '-inf', '(' .. now - fresh_ms)) do
  redis.call('ZREM', workers, stale)
  redis.call('HDEL', records, stale)
end
redis.call('ZADD', workers, now, name)
redis.call('HSET', records, name, record)
return 1
