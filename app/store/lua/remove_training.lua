-- include: common
-- keys: record index checkpoints
-- args: id
-- Removes the record of a run that has ended, or what the index has of one without a record. Returns the name of what it
-- would resume from, '' if there is none; nil if it has not ended.
local state = redis.call('HGET', record, 'state')
if state == 'queued' or state == 'running' then return nil end
redis.call('DEL', record)
redis.call('ZREM', index, id)
announce('training', id)
local dropped = redis.call('HGET', checkpoints, id)
redis.call('HDEL', checkpoints, id)
return dropped or ''
