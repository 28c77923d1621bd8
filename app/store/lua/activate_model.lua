-- keys: model active
-- args: version
-- Returns 0 if there is no such version.
if redis.call('EXISTS', model) == 0 then return 0 end
redis.call('SET', active, version)
return 1
