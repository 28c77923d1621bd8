-- keys: leases
-- args: kind woken_by worker
-- Ends the lease of the job that this wake-up made a worker claim, or of those that it claimed together, whose pool
-- process has died; unless another worker has claimed them since: their work would be done twice. Ends none if the
-- wake-up came twice and led to several claims, of which one may still be worked on: those of the dead process expire.
local found, claims, seen_claim = {}, 0, {}
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local seen = redis.call('HMGET', key.record(kind, id), 'worker', 'woken_by', 'together')
  if seen[1] == worker and seen[2] == woken_by then
    local claim = seen[3] or id
    if not seen_claim[claim] then claims, seen_claim[claim] = claims + 1, true end
    found[#found + 1] = id
  end
end
if claims ~= 1 then return 0 end
for _, id in ipairs(found) do redis.call('ZADD', leases, 'XX', 0, id) end
return #found
