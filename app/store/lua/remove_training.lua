-- include: common
-- keys: record queued leases index checkpoints
-- args: id unfinished:flag
-- Removes the record of a run, or what the index has of one without a record. Returns the name of what it would resume
-- from, '' if there is none; nil if it has not ended, unless it is to be removed unfinished.
local state = redis.call('HGET', record, 'state')
if (state == 'queued' or state == 'running') and not unfinished then return nil end
redis.call('DEL', record)
redis.call('ZREM', queued, id)
redis.call('ZREM', leases, id)
redis.call('ZREM', index, id)
announce('training', id)
local dropped = redis.call('HGET', checkpoints, id)
redis.call('HDEL', checkpoints, id)
return dropped or ''
