"""What must happen at once or not at all, as Lua on Redis' own clock.

``lease``: while a worker's lease runs, nobody else may claim. ``fence``: grows with every claim; whoever comes with an
old one is refused. Ids are in ``queued`` or in ``leases`` (or the record has ended), never in neither.
"""

from app.store import memory

_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local DAY = 86400000

local function announce(kind, id) redis.call('PUBLISH', 'lam:changes', kind .. ':' .. id) end

-- Whether the claim with this fence still stands.
local function held(record, running, fence)
  local seen = redis.call('HMGET', record, 'state', 'fence')
  return seen[1] == running and seen[2] == fence
end

local function enqueue(record, queued, id, sent)
  redis.call('HSET', record, 'state', 'queued', 'queued_at', now)
  redis.call('ZADD', queued, sent, id)
end

-- How many of an owner's episodes are unfinished, if no more may be; nil if one more may.
local function own_full(unfinished, most)
  if redis.call('SCARD', unfinished) < most then return nil end
  for _, id in ipairs(redis.call('SMEMBERS', unfinished)) do
    local state = redis.call('HGET', 'lam:episode:' .. id, 'state')
    if state ~= 'queued' and state ~= 'adapting' then redis.call('SREM', unfinished, id) end
  end
  local left = redis.call('SCARD', unfinished)
  return left >= most and left or nil
end

-- What an idempotency key was used for before: nothing, the same request ('existing') or another ('conflict').
local function used(key, digest)
  local first = redis.call('GET', key)
  if not first then return nil end
  local space = string.find(first, ' ', 1, true)
  local same = string.sub(first, space + 1) == digest
  return {same and 'existing' or 'conflict', string.sub(first, 1, space - 1)}
end
"""

# KEYS record support queued index owners-index tombstone expiry idempotency owners-unfinished
# ARGV id owner spec shape support ttl max-queue digest has-idempotency-key max-unfinished max-bytes
CREATE_EPISODE = (
    _COMMON
    + memory.BOUND
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return {'created', ARGV[1]} end  -- the client library sent it twice
if ARGV[9] == '1' then
  local before = used(KEYS[8], ARGV[8])
  if before then return before end
end
local waiting = redis.call('ZCARD', KEYS[3])
if waiting >= tonumber(ARGV[7]) then return {'full', waiting} end
local own = own_full(KEYS[9], tonumber(ARGV[10]))
if own then return {'own-full', own} end
if not hold(ARGV[1], #ARGV[5], tonumber(ARGV[11])) then return {'no-room', 0} end
make_room(#ARGV[5], tonumber(ARGV[11]))
local ttl = tonumber(ARGV[6])
redis.call('SADD', KEYS[9], ARGV[1])
redis.call('PEXPIRE', KEYS[9], ttl)
redis.call('HSET', KEYS[1], 'spec', ARGV[3], 'shape', ARGV[4], 'state', 'queued', 'attempts', 0, 'fence', 0,
           'queued_at', now, 'created_at', now, 'expires_at', now + ttl)
redis.call('PEXPIREAT', KEYS[1], now + ttl)
redis.call('SET', KEYS[2], ARGV[5], 'PXAT', now + ttl)
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZADD', KEYS[4], 0, ARGV[1])
redis.call('ZADD', KEYS[5], 0, ARGV[1])
redis.call('SET', KEYS[6], ARGV[2], 'PXAT', now + ttl + DAY)
redis.call('ZADD', KEYS[7], now + ttl, ARGV[1] .. ' ' .. ARGV[2])
if ARGV[9] == '1' then redis.call('SET', KEYS[8], ARGV[1] .. ' ' .. ARGV[8], 'PXAT', now + ttl) end
return {'created', ARGV[1]}
"""
)

# KEYS record support artifact queued leases index owners-index tombstone expiry
# ARGV id owner
DELETE_EPISODE = (
    _COMMON
    + memory.BOUND
    + """
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('SET', KEYS[8], ARGV[2], 'PX', DAY)
redis.call('ZREM', KEYS[9], ARGV[1] .. ' ' .. ARGV[2])
let_go(ARGV[1])
announce('episode', ARGV[1])
return 1
"""
)

# Forgets what is left of episodes whose time has come (their large keys expire by themselves).
# KEYS expiry index queued leases
SWEEP = (
    _COMMON
    + memory.BOUND
    + """
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
for _, entry in ipairs(gone) do
  local space = string.find(entry, ' ', 1, true)
  local id, owner = string.sub(entry, 1, space - 1), string.sub(entry, space + 1)
  redis.call('DEL', 'lam:episode:' .. id, 'lam:support:' .. id, 'lam:artifact:' .. id)
  redis.call('ZREM', KEYS[1], entry)
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[2] .. ':' .. owner, id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  let_go(id)
  announce('episode', id)
end
return #gone
"""
)

# KEYS record queued index idempotency
# ARGV id spec max-queue digest has-idempotency-key
CREATE_TRAINING = (
    _COMMON
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return {'created', ARGV[1]} end
if ARGV[5] == '1' then
  local before = used(KEYS[4], ARGV[4])
  if before then return before end
end
local waiting = redis.call('ZCARD', KEYS[2])
if waiting >= tonumber(ARGV[3]) then return {'full', waiting} end
if ARGV[5] == '1' then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[4], 'PX', DAY) end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'state', 'queued', 'attempts', 0, 'fence', 0, 'created_at', now)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
return {'created', ARGV[1]}
"""
)

# KEYS record queued
# ARGV id
CANCEL_TRAINING = (
    _COMMON
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'queued' then
  redis.call('HSET', KEYS[1], 'state', 'cancelled')
  redis.call('ZREM', KEYS[2], ARGV[1])
elseif state == 'running' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
else
  return 0
end
announce('training', ARGV[1])
return 1
"""
)

# KEYS record queued
# ARGV id
RESUME_TRAINING = (
    _COMMON
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'finished' then return state end
if state == 'queued' or state == 'running' then
  return redis.call('HEXISTS', KEYS[1], 'cancel') == 1 and 'being cancelled' or 'going on'
end
redis.call('HDEL', KEYS[1], 'error', 'cancel')
redis.call('HSET', KEYS[1], 'attempts', 0)
enqueue(KEYS[1], KEYS[2], ARGV[1], now)
announce('training', ARGV[1])
return 'resumed'
"""
)

# KEYS record queued leases
# ARGV kind id running-state worker lease
CLAIM = (
    _COMMON
    + """
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then return nil end
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'worker', ARGV[4])
if ARGV[1] == 'episode' then redis.call('HSET', KEYS[1], 'progress', '{}') end  -- a run goes on from its checkpoint
redis.call('HDEL', KEYS[1], 'error')
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[5], ARGV[2])
announce(ARGV[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
"""
)

# KEYS record leases draining
# ARGV id running-state fence lease
BEAT = (
    _COMMON
    + """
if not held(KEYS[1], ARGV[2], ARGV[3]) then return 'lost' end
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
if redis.call('HGET', KEYS[1], 'cancel') == '1' then return 'cancel' end
if redis.call('EXISTS', KEYS[3]) == 1 then return 'drain' end
return 'held'
"""
)

# KEYS record
# ARGV kind id running-state fence progress epoch
# A run that gets further than ever before is not the cause of its workers' deaths: its attempts start anew.
PROGRESS = (
    _COMMON
    + """
if not held(KEYS[1], ARGV[3], ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[5])
if tonumber(ARGV[6]) > tonumber(redis.call('HGET', KEYS[1], 'furthest') or 0) then
  redis.call('HSET', KEYS[1], 'furthest', ARGV[6], 'attempts', 1)
end
announce(ARGV[1], ARGV[2])
return 1
"""
)

# KEYS record leases artifact
# ARGV id fence progress result artifact max-bytes
COMMIT_EPISODE = (
    _COMMON
    + memory.BOUND
    + """
if not held(KEYS[1], 'adapting', ARGV[2]) then return 0 end
make_room(#ARGV[5], tonumber(ARGV[6]))
redis.call('ZADD', 'lam:artifacts', now, ARGV[1])
redis.call('SET', KEYS[3], ARGV[5], 'PXAT', redis.call('HGET', KEYS[1], 'expires_at'))
redis.call('HSET', KEYS[1], 'state', 'ready', 'progress', ARGV[3], 'result', ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
announce('episode', ARGV[1])
return 1
"""
)

ADAPT_AGAIN = _COMMON + memory.ADAPT_AGAIN

# KEYS model models active
# ARGV version weights card
_REGISTER = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'weights', ARGV[2], 'card', ARGV[3], 'created_at', now)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
redis.call('SET', KEYS[3], ARGV[1], 'NX')
"""
REGISTER_MODEL = _COMMON + _REGISTER + "return 1"

# KEYS model models active record leases
# ARGV version weights card id fence result
COMMIT_TRAINING = (
    _COMMON
    + "if not held(KEYS[4], 'running', ARGV[5]) then return 0 end"
    + _REGISTER
    + """
redis.call('HSET', KEYS[4], 'state', 'finished', 'result', ARGV[6])
redis.call('HDEL', KEYS[4], 'cancel')
redis.call('ZREM', KEYS[5], ARGV[4])
announce('training', ARGV[4])
return 1
"""
)

# KEYS model active
# ARGV version
ACTIVATE_MODEL = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
return 1
"""

# The claim ends in another way: 'failed' or 'cancelled' for good, 'retry' (failed after max-attempts), or 'back' into
# the queue as if it had never been claimed. What was to be cancelled does not go back.
# KEYS record queued leases
# ARGV kind id running-state fence end error max-attempts
RELEASE = (
    _COMMON
    + """
if not held(KEYS[1], ARGV[3], ARGV[4]) then return 0 end
redis.call('ZREM', KEYS[3], ARGV[2])
local ending, stopping = ARGV[5], redis.call('HDEL', KEYS[1], 'cancel') == 1
if ending == 'retry' then
  ending = tonumber(redis.call('HGET', KEYS[1], 'attempts')) >= tonumber(ARGV[7]) and 'failed' or 'again'
end
if stopping and ending ~= 'failed' then ending = 'cancelled' end
if ending == 'back' then redis.call('HINCRBY', KEYS[1], 'attempts', -1) end
if ending == 'back' or ending == 'again' then
  enqueue(KEYS[1], KEYS[2], ARGV[2], 0)  -- 0: the reconciler sends its wake-up next
else
  redis.call('HSET', KEYS[1], 'state', ending)
  if ending == 'failed' then redis.call('HSET', KEYS[1], 'error', ARGV[6]) end
end
announce(ARGV[1], ARGV[2])
return 1
"""
)

# A worker's child died: the lease it held ends now. Only if that worker holds it, else another's work would be redone.
# KEYS record leases
# ARGV id worker
EXPIRE_LEASE = (
    _COMMON
    + """
if redis.call('HGET', KEYS[1], 'worker') ~= ARGV[2] then return 0 end
return redis.call('ZADD', KEYS[2], 'XX', 'CH', 0, ARGV[1])
"""
)

# The reconciler: which wake-ups to send. Claims whose lease has ended go back to the queue, or fail after max-attempts;
# what was to be cancelled is.
# Of those that wait, the ones whose wake-up must be lost: the broker's list is empty and they were not woken just now;
# or a minute has passed and fewer messages than ids wait (a duplicate is refused by the claim, but costs; without a
# worker to take them they would pile up).
# KEYS queued leases broker-list
# ARGV kind max-attempts error
DUE = (
    _COMMON
    + """
local ids = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  local record = 'lam:' .. ARGV[1] .. ':' .. id
  redis.call('ZREM', KEYS[2], id)
  if redis.call('EXISTS', record) == 1 then
    if redis.call('HDEL', record, 'cancel') == 1 then
      redis.call('HSET', record, 'state', 'cancelled')
    elseif tonumber(redis.call('HGET', record, 'attempts')) >= tonumber(ARGV[2]) then
      redis.call('HSET', record, 'state', 'failed', 'error', ARGV[3])
    else
      enqueue(record, KEYS[1], id, now)
      ids[#ids + 1] = id
    end
    announce(ARGV[1], id)
  end
end
local messages = redis.call('LLEN', KEYS[3])
local due = 0  -- those that were handed back
if messages == 0 then due = now - 1000 elseif messages < redis.call('ZCARD', KEYS[1]) then due = now - 60000 end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', due, 'LIMIT', 0, 100)) do
  redis.call('ZADD', KEYS[1], now, id)
  ids[#ids + 1] = id
end
return ids
"""
)

# A token bucket: full at first, filled again evenly. Returns the ms until there is a token; 0: one was taken.
# KEYS bucket
# ARGV capacity ms-per-token
TAKE = (
    _COMMON
    + """
local capacity, each = tonumber(ARGV[1]), tonumber(ARGV[2])
local seen = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(capacity, (tonumber(seen[1]) or capacity) + (now - (tonumber(seen[2]) or now)) / each)
if tokens < 1 then return math.ceil((1 - tokens) * each) end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity * each))
return 0
"""
)

# Whether keys still count and what episodes are at, as they are at one moment.
# KEYS (key record)...
# Returns digest, revoked, state for each pair.
STANDINGS = """
local found = {}
for i = 1, #KEYS, 2 do
  local key = redis.call('HMGET', KEYS[i], 'digest', 'revoked')
  found[#found + 1] = key[1]
  found[#found + 1] = key[2]
  found[#found + 1] = redis.call('HGET', KEYS[i + 1], 'state')
end
return found
"""

# KEYS key key-by-token keys
# ARGV id name tenant scopes digest
# Returns the id of the key with this token: the new one, or the one that had it before (revoked or not).
MAKE_KEY = (
    _COMMON
    + """
local known = redis.call('GET', KEYS[2])
if known then return known end
redis.call('HSET', KEYS[1], 'name', ARGV[2], 'tenant', ARGV[3], 'scopes', ARGV[4], 'digest', ARGV[5],
           'created_at', now)
redis.call('SET', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
return ARGV[1]
"""
)
