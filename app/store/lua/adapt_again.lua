-- include: common jobs objects admission
-- keys: record queued unfinished
-- args: id lost max_queue:number max_unfinished:number
-- Enqueues a ready episode whose classifier was dropped once more, as one of its owner's unfinished episodes; its other
-- results stay as they are. "lost": what CLASSIFIERS had of it, if its bytes are not in the object store any more.
-- Returns {status, how many wait}.
local seen = redis.call('HMGET', record, 'state', 'expires_at')
local entry = redis.call('HGET', key.CLASSIFIERS, id)
if seen[1] ~= 'ready' or (entry and entry ~= lost) then return {'unchanged', 0} end
local waiting = redis.call('ZCARD', queued)
if waiting >= max_queue then return {'full', waiting} end
local own = unfinished_at_limit(unfinished, max_unfinished)
if own then return {'own-full', own} end
count(entry and 'readaptations:lost' or 'readaptations:dropped')
let_go(key.CLASSIFIERS, id, {})
redis.call('SADD', unfinished, id)
local left = seen[2] - now
if redis.call('PTTL', unfinished) < left then redis.call('PEXPIRE', unfinished, left) end
redis.call('HSET', record, 'attempts', 0)
redis.call('HDEL', record, 'together', 'alone')
enqueue(record, queued, id, now)
announce('episode', id)
return {'enqueued', 0}
