-- include: common
-- keys: bucket
-- args: capacity:number ms_per_token:number
-- A token bucket, full at first and refilled evenly. Takes a token and returns 0, or returns the milliseconds until
-- there is one.
local seen = redis.call('HMGET', bucket, 'tokens', 'at')
local refilled = (now - (tonumber(seen[2]) or now)) / ms_per_token
local tokens = math.min(capacity, (tonumber(seen[1]) or capacity) + refilled)
if tokens < 1 then return math.ceil((1 - tokens) * ms_per_token) end
redis.call('HSET', bucket, 'tokens', tostring(tokens - 1), 'at', now)
redis.call('PEXPIRE', bucket, math.ceil(capacity * ms_per_token))
return 0
