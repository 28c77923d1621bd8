-- What may keep an episode from being accepted.

-- Whether there is room for the support set of another episode, and for its record.
local RECORD_BYTES = 8192  -- roughly what an episode takes of Redis' memory, with room for its progress
local function has_room(bytes, max_object_bytes, max_memory)
  if total(key.SUPPORT_SETS) + bytes > SUPPORT_SHARE * max_object_bytes then return false end
  return used_memory() + RECORD_BYTES <= max_memory
end

-- Why no episode is accepted now, or which one a request like this created before: {status, the id of that episode or
-- how many wait}; nil if it is accepted.
local function refused(queued, idempotency, unfinished, request)
  if request.idempotent then
    local before = previous_use(idempotency, request.digest)
    if before then return before end
  end
  local waiting = redis.call('ZCARD', queued)
  if waiting >= request.max_queue then return {'full', waiting} end
  local own = unfinished_at_limit(unfinished, request.max_unfinished)
  if own then return {'own-full', own} end
  if not has_room(request.bytes, request.max_object_bytes, request.max_memory) then return {'no-room', 0} end
end
