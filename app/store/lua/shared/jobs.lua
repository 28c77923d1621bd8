-- A job (an episode or a training run) is in the queue, or leased by a worker, or its record has ended: never none of
-- these. Its fence grows with every claim.

-- Whether the claim with this fence is still the current one.
local function claim_valid(record, running_state, fence)
  local seen = redis.call('HMGET', record, 'state', 'fence')
  return seen[1] == running_state and seen[2] == fence
end

-- woken_at: when the wake-up for it was sent (ms); 0 makes the reconciler send one next. An attempt together with other
-- episodes does not count, since any of them may be why it failed: each is then attempted alone.
local function enqueue(record, queued, id, woken_at)
  if redis.call('HDEL', record, 'together') == 1 then
    redis.call('HINCRBY', record, 'attempts', -1)
    redis.call('HSET', record, 'alone', 1)
  end
  redis.call('HSET', record, 'state', 'queued', 'queued_at', now)
  redis.call('ZADD', queued, woken_at, id)
end

-- Gives a queued job to a worker; returns its record. woken_by: the id that the wake-up had, which may be another one.
local function lease(kind, id, running_state, record, queued, leases, worker, woken_by, lease_ms)
  redis.call('HINCRBY', record, 'attempts', 1)
  redis.call('HINCRBY', record, 'fence', 1)
  redis.call('HSET', record, 'state', running_state, 'worker', worker, 'woken_by', woken_by,
             'claimed_at', now)
  if kind == 'episode' then redis.call('HSET', record, 'progress', '{}') end  -- a run continues from its checkpoint
  redis.call('HDEL', record, 'error')
  redis.call('ZREM', queued, id)
  redis.call('ZADD', leases, now + lease_ms, id)
  announce(kind, id)
  return redis.call('HGETALL', record)
end
