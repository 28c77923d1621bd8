-- include: common jobs
-- keys: record queued
-- args: id
-- Enqueues a failed or cancelled run again. Returns 'resumed', or why nothing was changed.
local state = redis.call('HGET', record, 'state')
if not state then return 'removed' end
if state == 'finished' then return state end
if state == 'queued' or state == 'running' then
  return redis.call('HEXISTS', record, 'cancel') == 1 and 'being cancelled' or 'active'
end
redis.call('HDEL', record, 'error', 'cancel', 'ended_at')
redis.call('HSET', record, 'attempts', 0)
enqueue(record, queued, id, now)
announce('training', id)
return 'resumed'
