-- include: common models
-- keys: model models active
-- args: version weights card
register(model, models, active, version, weights, card)
return 1
