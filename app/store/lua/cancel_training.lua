-- include: common
-- keys: record queued
-- args: id
-- Cancels a queued run at once; a running one is marked, and its worker learns of it when it renews its lease.
local state = redis.call('HGET', record, 'state')
if state == 'queued' then
  redis.call('HSET', record, 'state', 'cancelled', 'ended_at', now)
  redis.call('ZREM', queued, id)
  count('jobs_ended:training:cancelled')
elseif state == 'running' then
  redis.call('HSET', record, 'cancel', 1)
else
  return 0
end
announce('training', id)
return 1
