-- include: common jobs
-- keys: queued leases messages
-- args: kind max_attempts:number reason
-- Returns the ids for which a wake-up is to be sent now. Jobs whose lease has expired are enqueued again, or fail after
-- the last attempt, or are cancelled where that was asked for. Of the queued jobs, those are due whose wake-up must be
-- lost: the broker's list is empty and none was sent within a second; or none was sent for a minute and there are
-- fewer messages than queued jobs. (A duplicate is harmless, since the claim refuses it, but not free; and without a
-- worker that takes them, wake-ups would pile up.)
local SECOND, MINUTE = 1000, 60000
local ids = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do
  local record = key.record(kind, id)
  redis.call('ZREM', leases, id)
  if redis.call('EXISTS', record) == 1 then
    if redis.call('HDEL', record, 'cancel') == 1 then
      redis.call('HSET', record, 'state', 'cancelled', 'ended_at', now)
      count('jobs_ended:' .. kind .. ':cancelled')
    elseif tonumber(redis.call('HGET', record, 'attempts')) >= max_attempts then
      redis.call('HSET', record, 'state', 'failed', 'error', reason, 'ended_at', now)
      count('jobs_ended:' .. kind .. ':failed')
    else
      enqueue(record, queued, id, now)
      count('retries:' .. kind .. ':worker-lost')
      ids[#ids + 1] = id
    end
    announce(kind, id)
  end
end
local waiting_messages = redis.call('LLEN', messages)
local latest = 0  -- only jobs whose claim was released
if waiting_messages == 0 then
  latest = now - SECOND
elseif waiting_messages < redis.call('ZCARD', queued) then
  latest = now - MINUTE
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', queued, '-inf', latest, 'LIMIT', 0, 100)) do
  redis.call('ZADD', queued, now, id)
  ids[#ids + 1] = id
end
return ids
