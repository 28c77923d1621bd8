-- include: common
-- keys: records three_for_each_queue...
-- args: fresh_ms:number
-- For each queue (its waiting jobs, its leases, its workers): how many wait, how many run, how old the oldest fresh
-- heartbeat is (ms; nil without one), the records of the workers with a fresh one, and how many workers are starting.
local found = {}
for i = 1, #three_for_each_queue, 3 do
  local alive = redis.call('ZRANGEBYSCORE', three_for_each_queue[i + 2], now - fresh_ms, '+inf', 'WITHSCORES')
  local age, known, starting = false, {}, 0
  for at = 1, #alive, 2 do
    local record = redis.call('HGET', records, alive[at])
    if record == '' then
      starting = starting + 1
    elseif record then
      known[#known + 1] = record
      age = age or now - alive[at + 1]
    end
  end
  local waiting, running = three_for_each_queue[i], three_for_each_queue[i + 1]
  found[#found + 1] = {redis.call('ZCARD', waiting), redis.call('ZCARD', running), age, known, starting}
end
return found
