-- include: common objects
-- keys: record former
-- args: id support bytes:number
-- Takes down the support set of an earlier version, which is in the object store now, unless it was deleted meanwhile.
if redis.call('EXISTS', record) == 0 or redis.call('DEL', former) == 0 then return 0 end
hold(key.SUPPORT_SETS, id, support, bytes)
return 1
