-- include: common
-- keys: workers records
-- args: fresh_ms:number
-- The names of the workers with a fresh heartbeat that are not starting any more.
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers, now - fresh_ms, '+inf')) do
  if redis.call('HGET', records, name) ~= '' then found[#found + 1] = name end
end
return found
