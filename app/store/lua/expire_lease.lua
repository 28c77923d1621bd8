-- keys: leases
-- args: kind woken_by worker
-- Ends the lease of a job that this wake-up made a worker claim, whose pool process has died; unless another worker has
-- claimed the job since: its work would be done twice.
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local seen = redis.call('HMGET', key.record(kind, id), 'worker', 'woken_by')
  if seen[1] == worker and seen[2] == woken_by then return redis.call('ZADD', leases, 'XX', 'CH', 0, id) end
end
return 0
