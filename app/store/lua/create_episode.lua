-- include: common admission memory
-- keys: record support queued index owner_index tombstone expiry idempotency unfinished
-- args: id owner spec shape images ttl_ms:number max_queue:number digest idempotent:flag
-- args: max_unfinished:number max_bytes:number
-- Stores and enqueues an episode, or says why not: {status, the id of the episode or how many wait}.
redis.call('INFO', 'memory')  -- where Redis does not allow what make_room asks, this fails before anything is written
if redis.call('EXISTS', record) == 1 then return {'created', id} end  -- the client library sent the command twice
if idempotent then
  local before = previous_use(idempotency, digest)
  if before then return before end
end
local waiting = redis.call('ZCARD', queued)
if waiting >= max_queue then return {'full', waiting} end
local own = unfinished_at_limit(unfinished, max_unfinished)
if own then return {'own-full', own} end
if not reserve_support(id, #images, max_bytes) then return {'no-room', 0} end
make_room(#images, max_bytes)
redis.call('SADD', unfinished, id)
redis.call('PEXPIRE', unfinished, ttl_ms)
redis.call('HSET', record, 'spec', spec, 'shape', shape, 'state', 'queued', 'attempts', 0, 'fence', 0,
           'queued_at', now, 'created_at', now, 'expires_at', now + ttl_ms)
redis.call('PEXPIREAT', record, now + ttl_ms)
redis.call('SET', support, images, 'PXAT', now + ttl_ms)
redis.call('ZADD', queued, now, id)
redis.call('ZADD', index, 0, id)
redis.call('ZADD', owner_index, 0, id)
redis.call('SET', tombstone, owner, 'PXAT', now + ttl_ms + DAY)
redis.call('ZADD', expiry, now + ttl_ms, id .. ' ' .. owner)
if idempotent then redis.call('SET', idempotency, id .. ' ' .. digest, 'PXAT', now + ttl_ms) end
return {'created', id}
