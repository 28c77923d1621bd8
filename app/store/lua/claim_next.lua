-- include: common jobs
-- keys: queued leases turns
-- args: woken_by worker lease_ms:number
-- Leases a queued episode to a worker and returns its record; nil if none is queued. Owners take turns, however many
-- episodes each of them has: it is the oldest one of the owner whose last turn was longest ago. (With 1000 queued, this
-- takes 2 ms.)
local COUNTER = ''  -- in "turns", besides the number of each owner's last turn
while true do
  local oldest = {}  -- of each owner
  for _, id in ipairs(redis.call('ZRANGE', queued, 0, -1)) do
    local owner = redis.call('GET', key.tombstone('episode', id)) or '?'
    if not oldest[owner] or id < oldest[owner] then oldest[owner] = id end
  end
  local next_id, next_owner, last_turn
  for owner, id in pairs(oldest) do
    local turn = tonumber(redis.call('HGET', turns, owner) or 0)
    if not next_id or turn < last_turn or (turn == last_turn and id < next_id) then
      next_id, next_owner, last_turn = id, owner, turn
    end
  end
  if not next_id then return nil end
  local record = key.record('episode', next_id)
  if redis.call('HGET', record, 'state') == 'queued' then
    redis.call('HSET', turns, next_owner, redis.call('HINCRBY', turns, COUNTER, 1))
    redis.call('PEXPIRE', turns, DAY)
    return lease('episode', next_id, 'adapting', record, queued, leases, worker, woken_by, lease_ms)
  end
  redis.call('ZREM', queued, next_id)  -- it has expired
end
