-- What may keep a request from being accepted.

-- How many of an owner's episodes are unfinished, if that is the limit or more; nil if there is room for another one.
-- Episodes that have ended are removed from the set only when it is full.
local function unfinished_at_limit(unfinished, limit)
  if redis.call('SCARD', unfinished) < limit then return nil end
  for _, id in ipairs(redis.call('SMEMBERS', unfinished)) do
    local state = redis.call('HGET', key.record('episode', id), 'state')
    if state ~= 'queued' and state ~= 'adapting' then redis.call('SREM', unfinished, id) end
  end
  local left = redis.call('SCARD', unfinished)
  return left >= limit and left or nil
end

-- What an idempotency key was used for before: nil (nothing), or {'existing', id} for the same request and
-- {'conflict', id} for another one. The value is "<id> <digest of the request>".
local function previous_use(idempotency, digest)
  local first = redis.call('GET', idempotency)
  if not first then return nil end
  local space = string.find(first, ' ', 1, true)
  local same = string.sub(first, space + 1) == digest
  return {same and 'existing' or 'conflict', string.sub(first, 1, space - 1)}
end
