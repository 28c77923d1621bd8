-- include: common models
-- keys: model models active
-- args: version kind weights card
register(model, models, active, version, kind, weights, card)
return 1
