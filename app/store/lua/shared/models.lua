-- The active version of an installation from before there were kinds remains that of its kind. (Its name is kept, so that
-- the previous release can still be started.)
local function adopt_former(active)
  local former = redis.call('GET', key.FORMER_ACTIVE_MODEL)
  local card = former and redis.call('HGET', key.model(former), 'card')
  if not card then return end  -- none, or Redis has lost it
  local image = cjson.decode(card).config.image
  redis.call('HSETNX', active, image.normalise_polarity and 'drawings' or 'photos', former)
end

-- Registers a model version once, however often it is called; the first version of each kind becomes its active one.
-- What Redis has lost of a version is stored again.
local function register(model, models, active, version, kind, weights, card)
  if redis.call('EXISTS', model) == 0 then
    redis.call('HSET', model, 'weights', weights, 'card', card, 'created_at', now)
  end
  redis.call('ZADD', models, 'NX', now, version)
  adopt_former(active)
  redis.call('HSETNX', active, kind, version)
end
