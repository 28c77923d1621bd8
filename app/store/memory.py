"""How memory in Redis stays within its bound: Lua for the scripts that write what is large.

Support sets are what cannot be made again. They may take three quarters of the bound, and past that no episode is
accepted; classifiers take the rest and go first, oldest first, since they can be adapted again.
"""

BOUND = """
local SUPPORT_SHARE = 0.75
local RECORD_BYTES = 8192  -- about what an episode takes beside its images and its classifier

-- Whether there is room for the support set of one more episode; then it is counted.
local function hold(id, bytes, limit)
  local total = tonumber(redis.call('HGET', 'lam:held', 'total') or 0)
  if total + bytes + RECORD_BYTES > SUPPORT_SHARE * limit then return false end
  redis.call('HSET', 'lam:held', id, bytes + RECORD_BYTES)
  redis.call('HINCRBY', 'lam:held', 'total', bytes + RECORD_BYTES)
  return true
end

-- The episode is gone, whether Redis or we removed it.
local function let_go(id)
  local bytes = redis.call('HGET', 'lam:held', id)
  if bytes then
    redis.call('HDEL', 'lam:held', id)
    redis.call('HINCRBY', 'lam:held', 'total', -bytes)
  end
  redis.call('ZREM', 'lam:artifacts', id)
end

-- Drops classifiers, oldest first, until so many bytes fit or none is left.
local function make_room(bytes, limit)
  local lacking = tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')) + bytes - limit
  while lacking > 0 do
    local oldest = redis.call('ZRANGE', 'lam:artifacts', 0, 0)[1]
    if not oldest then return end
    lacking = lacking - redis.call('STRLEN', 'lam:artifact:' .. oldest)
    redis.call('DEL', 'lam:artifact:' .. oldest)
    redis.call('ZREM', 'lam:artifacts', oldest)
  end
end
"""

# A ready episode whose classifier was dropped goes into the queue again, as one of its owner's that are unfinished; its
# other results stay as they are.
# KEYS record queued artifact owners-unfinished
# ARGV id max-queue max-unfinished
ADAPT_AGAIN = """
local seen = redis.call('HMGET', KEYS[1], 'state', 'expires_at')
if seen[1] ~= 'ready' or redis.call('EXISTS', KEYS[3]) == 1 then return {'as it was', 0} end
local waiting = redis.call('ZCARD', KEYS[2])
if waiting >= tonumber(ARGV[2]) then return {'full', waiting} end
local own = own_full(KEYS[4], tonumber(ARGV[3]))
if own then return {'own-full', own} end
redis.call('SADD', KEYS[4], ARGV[1])
local left = seen[2] - now
if redis.call('PTTL', KEYS[4]) < left then redis.call('PEXPIRE', KEYS[4], left) end
redis.call('HSET', KEYS[1], 'attempts', 0)
enqueue(KEYS[1], KEYS[2], ARGV[1], now)
announce('episode', ARGV[1])
return {'enqueued', 0}
"""
