-- Registers a model version once, however often it is called; the first version of all becomes the active one.
local function register(model, models, active, version, weights, card)
  if redis.call('EXISTS', model) == 0 then
    redis.call('HSET', model, 'weights', weights, 'card', card, 'created_at', now)
    redis.call('ZADD', models, now, version)
  end
  redis.call('SET', active, version, 'NX')
end
