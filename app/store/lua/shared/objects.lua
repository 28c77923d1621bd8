-- What the object store has of each episode, and its limit. Support sets cannot be made again: they may take three
-- quarters of the limit, and beyond that no episode is accepted. Classifiers take the rest; those that were used least
-- recently are dropped to make room, since adapting again gives the same ones. A script only forgets an object: its
-- caller deletes those that it returns as dropped, and what a killed caller leaves behind is swept later.
local SUPPORT_SHARE = 0.75
local DROPPED_AT_MOST = 100  -- by one call; the next one goes on

local function total(hash) return tonumber(redis.call('HGET', key.STORED_BYTES, hash) or 0) end

-- Takes down that the episode has this object ("<name> <bytes>") in SUPPORT_SETS or CLASSIFIERS.
local function hold(hash, id, name, bytes)
  redis.call('HSET', hash, id, name .. ' ' .. bytes)
  redis.call('HINCRBY', key.STORED_BYTES, hash, bytes)
end

-- Forgets what the episode has in SUPPORT_SETS or CLASSIFIERS, and adds its name to the list of those dropped.
local function let_go(hash, id, dropped)
  local entry = redis.call('HGET', hash, id)
  if not entry then return end
  local name, bytes = string.match(entry, '^(%S+) (%d+)$')
  redis.call('HDEL', hash, id)
  redis.call('HINCRBY', key.STORED_BYTES, hash, -bytes)
  if hash == key.CLASSIFIERS then redis.call('ZREM', key.CLASSIFIERS_USED, id) end
  dropped[#dropped + 1] = name
end

-- Forgets both, of an episode that was deleted or has expired.
local function let_go_of_all(id, dropped)
  let_go(key.SUPPORT_SETS, id, dropped)
  let_go(key.CLASSIFIERS, id, dropped)
end

-- Drops classifiers until this many bytes fit, or none is left.
local function make_room(bytes, limit, dropped)
  for _ = 1, DROPPED_AT_MOST do
    if total(key.SUPPORT_SETS) + total(key.CLASSIFIERS) + bytes <= limit then return end
    local oldest = redis.call('ZRANGE', key.CLASSIFIERS_USED, 0, 0)[1]
    if not oldest then return end
    let_go(key.CLASSIFIERS, oldest, dropped)
    count('classifiers_dropped')
  end
end
