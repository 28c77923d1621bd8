-- include: common
-- keys: model models active used
-- args: version
-- Removes a model version that is neither active nor used by an episode: {'removed', 0}, or {why not, until when (ms)}.
for _, other in ipairs(redis.call('HVALS', active)) do
  if other == version then return {'active', 0} end
end
local expires_at = tonumber(redis.call('ZSCORE', used, version) or 0)
if expires_at > now then return {'used', expires_at} end
if redis.call('ZREM', models, version) + redis.call('DEL', model) == 0 then return {'unknown', 0} end
redis.call('ZREM', used, version)
return {'removed', 0}
