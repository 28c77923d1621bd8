-- include: common models
-- keys: model models active backbones
-- args: version kind weights card backbone object
-- Registers the model version; backbone: the name of the one that it needs and that does not ship with the package, ''
-- if there is none; object: that of this backbone in the object store, '' if it has not been stored now. 0, and nothing
-- is registered, if the backbone has to be stored first.
if backbone ~= '' then
  if object ~= '' then redis.call('HSETNX', backbones, backbone, object) end
  if redis.call('HEXISTS', backbones, backbone) == 0 then return 0 end
end
register(model, models, active, version, kind, weights, card)
return 1
