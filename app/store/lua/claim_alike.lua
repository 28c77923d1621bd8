-- include: common jobs turns
-- keys: record queued leases turns
-- args: id fence most:number woken_by worker lease_ms:number
-- Leases further episodes to the worker that has the claim with this fence on an episode, to be adapted together with it,
-- and returns their records: those whose turn it is next, as long as they are of the same shape and none of them was
-- attempted before, at most so many.

-- What episodes that are adapted together have in common; nil of one that is adapted alone, as is one that has images
-- without a label.
local function likeness(own, attempts)
  local seen = redis.call('HMGET', own, 'attempts', 'alone', 'shape', 'spec')
  if seen[1] ~= attempts or seen[2] then return nil end
  local spec = cjson.decode(seen[4])
  for _, label in ipairs(spec.labels) do
    if label < 0 then return nil end
  end
  return cjson.encode({seen[3], spec.model_version, spec.steps, #spec.classes})
end

local found = {}
local alike = claim_valid(record, 'adapting', fence) and likeness(record, '1')
local owners = alike and owners_of(queued)
while alike and #found < most do
  local next_id = next_in_turn(owners, queued, turns)
  local other = next_id and key.record('episode', next_id)
  if not next_id or likeness(other, '0') ~= alike then break end
  took_turn(owners[next_id], turns)
  owners[next_id] = nil
  found[#found + 1] = lease('episode', next_id, 'adapting', other, queued, leases, worker, woken_by, lease_ms)
  redis.call('HSET', other, 'together', id)
end
if #found > 0 then redis.call('HSET', record, 'together', id) end
return found
