-- keys: record leases
-- args: id worker
-- Ends the lease of a worker whose pool process died, unless another worker has claimed the job since: its work would
-- be done twice.
if redis.call('HGET', record, 'worker') ~= worker then return 0 end
return redis.call('ZADD', leases, 'XX', 'CH', 0, id)
