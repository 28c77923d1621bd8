-- include: common jobs
-- keys: record queued leases
-- args: kind id running_state fence outcome reason max_attempts:number
-- Ends a claim without a result. The outcome is 'failed' or 'cancelled' (final), 'retry' (failed after the last
-- attempt), or 'hand-back' (into the queue as if it had never been claimed). A run that was to be cancelled is not
-- enqueued again.
if not claim_valid(record, running_state, fence) then return 0 end
redis.call('ZREM', leases, id)
local cancelling = redis.call('HDEL', record, 'cancel') == 1
if outcome == 'retry' and tonumber(redis.call('HGET', record, 'attempts')) >= max_attempts then outcome = 'failed' end
if cancelling and outcome ~= 'failed' then outcome = 'cancelled' end
if outcome == 'hand-back' then
  redis.call('HDEL', record, 'together')
  redis.call('HINCRBY', record, 'attempts', -1)
end
if outcome == 'hand-back' or outcome == 'retry' then
  enqueue(record, queued, id, 0)
  if outcome == 'retry' then count('retries:' .. kind .. ':error') end
else
  redis.call('HSET', record, 'state', outcome, 'ended_at', now)
  count('jobs_ended:' .. kind .. ':' .. outcome)
  if outcome == 'failed' then redis.call('HSET', record, 'error', reason) end
end
announce(kind, id)
return 1
