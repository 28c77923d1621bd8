-- include: common jobs models
-- keys: model models active record leases checkpoints
-- args: version kind weights card id fence result
-- Registers the new model version and ends the run. Returns the name of what it would resume from, which nobody needs any
-- more, '' if there is none; nil if the claim is no longer valid.
if not claim_valid(record, 'running', fence) then return nil end
register(model, models, active, version, kind, weights, card)
redis.call('HSET', record, 'state', 'finished', 'result', result, 'ended_at', now)
redis.call('HDEL', record, 'cancel')
redis.call('ZREM', leases, id)
count('jobs_ended:training:done')
announce('training', id)
local dropped = redis.call('HGET', checkpoints, id)
redis.call('HDEL', checkpoints, id)
return dropped or ''
