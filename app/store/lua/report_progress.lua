-- include: common jobs
-- keys: record
-- args: kind id running_state fence progress epoch:number
-- A run that gets further than ever before is not what its workers die of: its attempts are counted anew.
if not claim_valid(record, running_state, fence) then return 0 end
redis.call('HSET', record, 'progress', progress)
if epoch > tonumber(redis.call('HGET', record, 'furthest') or 0) then
  redis.call('HSET', record, 'furthest', epoch, 'attempts', 1)
end
announce(kind, id)
return 1
