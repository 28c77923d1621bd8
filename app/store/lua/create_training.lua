-- include: common admission replication
-- keys: record queued index idempotency tombstone
-- args: id spec max_queue:number digest idempotent:flag
-- Stores and enqueues a training run, or says why not: {status, the id of the run or how many wait, how many replicas
-- are connected}.
local connected = replicas()
if redis.call('EXISTS', record) == 1 then return {'created', id, connected} end  -- it was sent twice
if redis.call('EXISTS', tombstone) == 1 then return {'late', 0, connected} end  -- it was withdrawn before it arrived
if idempotent then
  local before = previous_use(idempotency, digest)
  if before then return {before[1], before[2], connected} end
end
local waiting = redis.call('ZCARD', queued)
if waiting >= max_queue then return {'full', waiting, connected} end
if idempotent then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', DAY) end
redis.call('HSET', record, 'spec', spec, 'state', 'queued', 'attempts', 0, 'fence', 0, 'created_at', now)
redis.call('ZADD', queued, now, id)
redis.call('ZADD', index, 0, id)
return {'created', id, connected}
