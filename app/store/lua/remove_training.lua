-- include: common replication
-- keys: record queued leases index checkpoints
-- args: id unfinished:flag
-- Removes the record of a run, or what the index has of one without a record. Returns {the name of what it would resume
-- from, how many replicas are connected}; the name is '' if there is none, and false if the run has not ended and is not
-- to be removed unfinished.
local state = redis.call('HGET', record, 'state')
if (state == 'queued' or state == 'running') and not unfinished then return {false, 0} end
redis.call('DEL', record)
redis.call('ZREM', queued, id)
redis.call('ZREM', leases, id)
redis.call('ZREM', index, id)
announce('training', id)
local dropped = redis.call('HGET', checkpoints, id)
redis.call('HDEL', checkpoints, id)
return {dropped or '', replicas()}
