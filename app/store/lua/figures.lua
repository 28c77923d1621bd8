-- include: common objects
-- keys: measurements queued_episodes queued_trainings
-- For metrics: what was measured and counted, the bytes that Redis uses, those of all support sets and all classifiers,
-- and how long (ms) the episode and the training run have waited that wait longest; 0 if none waits. (Of 1000 queued
-- episodes, it takes 2 ms.)
local function waiting(kind, queued)
  local since = now
  for _, id in ipairs(redis.call('ZRANGE', queued, 0, -1)) do
    local seen = redis.call('HMGET', key.record(kind, id), 'queued_at', 'created_at')
    since = math.min(since, tonumber(seen[1] or seen[2]) or now)  -- neither if it has expired
  end
  return now - since
end
return {
  redis.call('HGETALL', measurements), used_memory(), total(key.SUPPORT_SETS), total(key.CLASSIFIERS),
  waiting('episode', queued_episodes), waiting('training', queued_trainings),
}
