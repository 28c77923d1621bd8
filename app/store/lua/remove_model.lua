-- include: common
-- keys: model models active used backbones
-- args: version
-- Removes a model version that is neither active nor used by an episode: {'removed', 0, the object of its backbone if no
-- other version needs that, else ''}, or {why not, until when (ms), ''}.
local function backbone_of(card)
  local network = card and cjson.decode(card).config.network
  return network and network.backbone ~= cjson.null and network.backbone or nil
end

for _, other in ipairs(redis.call('HVALS', active)) do
  if other == version then return {'active', 0, ''} end
end
local expires_at = tonumber(redis.call('ZSCORE', used, version) or 0)
if expires_at > now then return {'used', expires_at, ''} end
local backbone = backbone_of(redis.call('HGET', model, 'card'))
if redis.call('ZREM', models, version) + redis.call('DEL', model) == 0 then return {'unknown', 0, ''} end
redis.call('ZREM', used, version)
if not backbone then return {'removed', 0, ''} end
for _, other in ipairs(redis.call('ZRANGE', models, 0, -1)) do
  if backbone_of(redis.call('HGET', key.model(other), 'card')) == backbone then return {'removed', 0, ''} end
end
local dropped = redis.call('HGET', backbones, backbone)
redis.call('HDEL', backbones, backbone)
return {'removed', 0, dropped or ''}
