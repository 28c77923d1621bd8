-- keys: leases
-- args: kind woken_by worker
-- Ends the lease of a job that this wake-up made a worker claim, whose pool process has died; unless another worker has
-- claimed the job since: its work would be done twice. Ends none if the wake-up came twice and led to several jobs, of
-- which one may still be worked on: those of the dead process expire.
local found = {}
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local seen = redis.call('HMGET', key.record(kind, id), 'worker', 'woken_by')
  if seen[1] == worker and seen[2] == woken_by then found[#found + 1] = id end
end
if #found ~= 1 then return 0 end
return redis.call('ZADD', leases, 'XX', 'CH', 0, found[1])
