-- include: common jobs
-- keys: record queued leases
-- args: kind id running_state worker lease_ms:number
-- Leases a queued job to a worker and returns its record; nil if it is not queued.
if redis.call('HGET', record, 'state') ~= 'queued' then return nil end
return lease(kind, id, running_state, record, queued, leases, worker, id, lease_ms)
