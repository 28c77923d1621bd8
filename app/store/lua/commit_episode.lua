-- include: common jobs memory
-- keys: record leases artifact
-- args: id fence progress result classifier max_bytes:number
-- Stores the classifier and ends the episode; 0 if the claim is no longer valid.
if not claim_valid(record, 'adapting', fence) then return 0 end
make_room(#classifier, max_bytes)
redis.call('ZADD', key.ARTIFACTS, now, id)
redis.call('SET', artifact, classifier, 'PXAT', redis.call('HGET', record, 'expires_at'))
redis.call('HSET', record, 'state', 'ready', 'progress', progress, 'result', result)
redis.call('ZREM', leases, id)
announce('episode', id)
return 1
