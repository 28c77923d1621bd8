-- include: common replication
-- keys: record queued leases index checkpoints tombstone
-- args: id withdrawn:flag
-- Removes the record of a run, or what the index has of one without a record. Returns {the name of what it would resume
-- from, how many replicas are connected}; the name is '' if there is none, and false if the run has not ended, unless it
-- is withdrawn: then it goes in whatever state, and cannot be created any more, in case the request arrives late.
local state = redis.call('HGET', record, 'state')
if (state == 'queued' or state == 'running') and not withdrawn then return {false, 0} end
if withdrawn then redis.call('SET', tombstone, '', 'PX', DAY) end
redis.call('DEL', record)
redis.call('ZREM', queued, id)
redis.call('ZREM', leases, id)
redis.call('ZREM', index, id)
announce('training', id)
local dropped = redis.call('HGET', checkpoints, id)
redis.call('HDEL', checkpoints, id)
return {dropped or '', replicas()}
