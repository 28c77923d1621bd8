-- include: common
-- keys: records three_for_each_queue...
-- args: fresh_ms:number
-- For each queue (its waiting jobs, its leases, its workers): how many wait, how many run, how old the oldest fresh
-- heartbeat is (ms; nil without one), and the records of the workers with a fresh one.
local found = {}
for i = 1, #three_for_each_queue, 3 do
  local workers = three_for_each_queue[i + 2]
  local oldest = redis.call('ZRANGEBYSCORE', workers, now - fresh_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local alive = redis.call('ZRANGEBYSCORE', workers, now - fresh_ms, '+inf')
  local known = {}
  for _, name in ipairs(alive) do known[#known + 1] = redis.call('HGET', records, name) or nil end
  local waiting, running = three_for_each_queue[i], three_for_each_queue[i + 1]
  local age = oldest[2] and now - oldest[2]
  found[#found + 1] = {redis.call('ZCARD', waiting), redis.call('ZCARD', running), age or false, known}
end
return found
