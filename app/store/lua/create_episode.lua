-- include: common objects admission episode_admission replication
-- keys: record queued index owner_index tombstone expiry idempotency unfinished models_used
-- args: id owner model_version spec shape ttl_ms:number support bytes:number admitted_at:number
-- args: max_queue:number digest idempotent:flag max_unfinished:number max_object_bytes:number max_memory:number
-- Stores and enqueues an episode whose support set is in the object store, or says why not: {status, the id of the
-- episode or how many wait, the names of dropped objects, how many replicas are connected}.
local connected = replicas()
if redis.call('EXISTS', record) == 1 then return {'created', id, {}, connected} end  -- it was sent twice
-- It was withdrawn before it arrived; or objects that nobody names are swept when they are twice as old.
if redis.call('EXISTS', tombstone) == 1 or now - admitted_at > HALF_AN_HOUR then return {'late', 0, {}, connected} end
-- It may have been removed since it was chosen.
if redis.call('EXISTS', key.model(model_version)) == 0 then return {'no-model', 0, {}, connected} end
local before = refused(queued, idempotency, unfinished, {
  bytes = bytes, max_queue = max_queue, digest = digest, idempotent = idempotent, max_unfinished = max_unfinished,
  max_object_bytes = max_object_bytes, max_memory = max_memory,
})
if before then return {before[1], before[2], {}, connected} end
local dropped = {}
make_room(bytes, max_object_bytes, dropped)
hold(key.SUPPORT_SETS, id, support, bytes)
redis.call('SADD', unfinished, id)
redis.call('PEXPIRE', unfinished, ttl_ms)
redis.call('HSET', record, 'spec', spec, 'shape', shape, 'state', 'queued', 'attempts', 0, 'fence', 0,
           'queued_at', now, 'created_at', now, 'expires_at', now + ttl_ms)
redis.call('PEXPIREAT', record, now + ttl_ms)
redis.call('ZADD', models_used, 'GT', now + ttl_ms, model_version)
redis.call('ZADD', queued, now, id)
redis.call('ZADD', index, 0, id)
redis.call('ZADD', owner_index, 0, id)
redis.call('SET', tombstone, owner, 'PXAT', now + ttl_ms + DAY)
redis.call('ZADD', expiry, now + ttl_ms, id .. ' ' .. owner)
if idempotent then redis.call('SET', idempotency, id .. ' ' .. digest, 'PXAT', now + ttl_ms) end
return {'created', id, dropped, connected}
