-- Registers a model version once, however often it is called; the first version of all becomes the active one. What
-- Redis has lost of a version is stored again.
local function register(model, models, active, version, weights, card)
  if redis.call('EXISTS', model) == 0 then
    redis.call('HSET', model, 'weights', weights, 'card', card, 'created_at', now)
  end
  redis.call('ZADD', models, 'NX', now, version)
  redis.call('SET', active, version, 'NX')
end
