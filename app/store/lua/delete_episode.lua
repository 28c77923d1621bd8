-- include: common objects replication
-- keys: record queued leases index owner_index tombstone expiry
-- args: id owner
-- Returns {the names of dropped objects, how many replicas are connected}.
local dropped = {}
redis.call('DEL', record)
redis.call('ZREM', queued, id)
redis.call('ZREM', leases, id)
redis.call('ZREM', index, id)
redis.call('ZREM', owner_index, id)
redis.call('SET', tombstone, owner, 'PX', DAY)
redis.call('ZREM', expiry, id .. ' ' .. owner)
let_go_of_all(id, dropped)
announce('episode', id)
return {dropped, replicas()}
