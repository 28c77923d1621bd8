-- include: common objects
-- keys: expiry index queued leases
-- Removes what is left of up to 100 expired episodes: returns how many, and the names of dropped objects.
local expired, dropped = redis.call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, 100), {}
for _, entry in ipairs(expired) do
  local space = string.find(entry, ' ', 1, true)
  local id, owner = string.sub(entry, 1, space - 1), string.sub(entry, space + 1)
  redis.call('DEL', key.record('episode', id))
  redis.call('ZREM', expiry, entry)
  redis.call('ZREM', index, id)
  redis.call('ZREM', key.index('episode', owner), id)
  redis.call('ZREM', queued, id)
  redis.call('ZREM', leases, id)
  let_go_of_all(id, dropped)
  announce('episode', id)
end
return {#expired, dropped}
