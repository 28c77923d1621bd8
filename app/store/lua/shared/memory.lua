-- Keeps what Redis uses within its limit. Support sets cannot be made again: they may take three quarters of the limit,
-- and beyond that no episode is accepted. Classifiers take the rest and are dropped, oldest first, to make room, since
-- adapting again gives the same ones.
local SUPPORT_SHARE = 0.75
local RECORD_BYTES = 8192  -- roughly what an episode takes in addition to its images and its classifier

-- Counts the support set of a new episode; false if there is no room for it.
local function reserve_support(id, bytes, limit)
  local total = tonumber(redis.call('HGET', key.SUPPORT_BYTES, 'total') or 0)
  if total + bytes + RECORD_BYTES > SUPPORT_SHARE * limit then return false end
  redis.call('HSET', key.SUPPORT_BYTES, id, bytes + RECORD_BYTES)
  redis.call('HINCRBY', key.SUPPORT_BYTES, 'total', bytes + RECORD_BYTES)
  return true
end

-- Stops counting an episode that was deleted or has expired.
local function release_memory(id)
  local bytes = redis.call('HGET', key.SUPPORT_BYTES, id)
  if bytes then
    redis.call('HDEL', key.SUPPORT_BYTES, id)
    redis.call('HINCRBY', key.SUPPORT_BYTES, 'total', -bytes)
  end
  redis.call('ZREM', key.ARTIFACTS, id)
end

-- Drops classifiers, oldest first, until this many bytes fit or none is left.
local function make_room(bytes, limit)
  local lacking = tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')) + bytes - limit
  while lacking > 0 do
    local oldest = redis.call('ZRANGE', key.ARTIFACTS, 0, 0)[1]
    if not oldest then return end
    lacking = lacking - redis.call('STRLEN', key.artifact(oldest))
    redis.call('DEL', key.artifact(oldest))
    redis.call('ZREM', key.ARTIFACTS, oldest)
  end
end
