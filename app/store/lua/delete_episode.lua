-- include: common memory
-- keys: record support artifact queued leases index owner_index tombstone expiry
-- args: id owner
redis.call('DEL', record, support, artifact)
redis.call('ZREM', queued, id)
redis.call('ZREM', leases, id)
redis.call('ZREM', index, id)
redis.call('ZREM', owner_index, id)
redis.call('SET', tombstone, owner, 'PX', DAY)
redis.call('ZREM', expiry, id .. ' ' .. owner)
release_memory(id)
announce('episode', id)
return 1
