-- include: common jobs
-- keys: record checkpoints
-- args: id fence name
-- Names what the run resumes from. Returns what it resumed from before, '' if from nothing; nil if the claim is no longer
-- valid.
if not claim_valid(record, 'running', fence) then return nil end
local before = redis.call('HGET', checkpoints, id)
redis.call('HSET', checkpoints, id, name)
return before or ''
