-- include: common jobs admission
-- keys: record queued artifact unfinished
-- args: id max_queue:number max_unfinished:number
-- Enqueues a ready episode whose classifier was dropped once more, as one of its owner's unfinished episodes; its other
-- results stay as they are. Returns {status, how many wait}.
local seen = redis.call('HMGET', record, 'state', 'expires_at')
if seen[1] ~= 'ready' or redis.call('EXISTS', artifact) == 1 then return {'unchanged', 0} end
local waiting = redis.call('ZCARD', queued)
if waiting >= max_queue then return {'full', waiting} end
local own = unfinished_at_limit(unfinished, max_unfinished)
if own then return {'own-full', own} end
redis.call('SADD', unfinished, id)
local left = seen[2] - now
if redis.call('PTTL', unfinished) < left then redis.call('PEXPIRE', unfinished, left) end
redis.call('HSET', record, 'attempts', 0)
enqueue(record, queued, id, now)
announce('episode', id)
return {'enqueued', 0}
