-- include: common jobs turns
-- keys: queued leases turns
-- args: woken_by worker lease_ms:number
-- Leases the queued episode whose turn it is to a worker and returns its record; nil if none is queued.
local owners = owners_of(queued)
local id = next_in_turn(owners, queued, turns)
if not id then return nil end
took_turn(owners[id], turns)
return lease('episode', id, 'adapting', key.record('episode', id), queued, leases, worker, woken_by, lease_ms)
