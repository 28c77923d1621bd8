-- include: common jobs objects
-- keys: record leases
-- args: id fence progress result classifier bytes:number max_object_bytes:number
-- Takes down the classifier, which is in the object store, and ends the episode. Returns the names of dropped objects;
-- nil if the claim is no longer valid, unless by this very commit.
if not claim_valid(record, 'adapting', fence) then
  local entry = redis.call('HGET', key.CLASSIFIERS, id)
  return entry == classifier .. ' ' .. bytes and {} or false
end
local dropped = {}
let_go(key.CLASSIFIERS, id, dropped)
make_room(bytes, max_object_bytes, dropped)
hold(key.CLASSIFIERS, id, classifier, bytes)
redis.call('ZADD', key.CLASSIFIERS_USED, now, id)
redis.call('HSET', record, 'state', 'ready', 'progress', progress, 'result', result)
redis.call('ZREM', leases, id)
count('jobs_ended:episode:done')
announce('episode', id)
return dropped
