-- How many replicas have what the server has, one of which may have to take over: not those that are still being filled.
local function replicas()
  local _, online = string.gsub(redis.call('INFO', 'replication'), 'state=online', '')
  return online
end
