-- include: common
-- keys: record index
-- args: id
-- Removes the record of a run that has ended, or what the index has of one without a record; 0 if it has not ended.
local state = redis.call('HGET', record, 'state')
if state == 'queued' or state == 'running' then return 0 end
redis.call('DEL', record)
redis.call('ZREM', index, id)
announce('training', id)
return 1
