-- include: common
-- keys: record queued leases
-- args: kind id running_state worker lease_ms:number
-- Leases a queued job to a worker and returns its record; nil if it is not queued.
if redis.call('HGET', record, 'state') ~= 'queued' then return nil end
redis.call('HINCRBY', record, 'attempts', 1)
redis.call('HINCRBY', record, 'fence', 1)
redis.call('HSET', record, 'state', running_state, 'worker', worker)
if kind == 'episode' then redis.call('HSET', record, 'progress', '{}') end  -- a run continues from its checkpoint
redis.call('HDEL', record, 'error')
redis.call('ZREM', queued, id)
redis.call('ZADD', leases, now + lease_ms, id)
announce(kind, id)
return redis.call('HGETALL', record)
