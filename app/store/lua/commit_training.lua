-- include: common jobs models
-- keys: model models active record leases
-- args: version kind weights card id fence result
-- Registers the new model version and ends the run; 0 if the claim is no longer valid.
if not claim_valid(record, 'running', fence) then return 0 end
register(model, models, active, version, kind, weights, card)
redis.call('HSET', record, 'state', 'finished', 'result', result, 'ended_at', now)
redis.call('HDEL', record, 'cancel')
redis.call('ZREM', leases, id)
count('jobs_ended:training:done')
announce('training', id)
return 1
