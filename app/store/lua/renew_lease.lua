-- include: common jobs
-- keys: record leases draining
-- args: id running_state fence lease_ms:number
-- Renews a lease that the claim still has, and tells the worker whether it is to go on.
if not claim_valid(record, running_state, fence) then return 'lost' end
redis.call('ZADD', leases, now + lease_ms, id)
if redis.call('HGET', record, 'cancel') == '1' then return 'cancel' end
if redis.call('EXISTS', draining) == 1 then return 'drain' end
return 'valid'
