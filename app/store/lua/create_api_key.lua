-- include: common
-- keys: api_key by_token all_keys
-- args: id name tenant scopes digest
-- Returns the id of the key with this token: the new one, or the one that had the token before (revoked or not).
local known = redis.call('GET', by_token)
if known then return known end
redis.call('HSET', api_key, 'name', name, 'tenant', tenant, 'scopes', scopes, 'digest', digest, 'created_at', now)
redis.call('SET', by_token, id)
redis.call('ZADD', all_keys, now, id)
return id
