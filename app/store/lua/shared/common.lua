-- The time by Redis' own clock, the notice that follows every change of a record, and what metrics need.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)  -- milliseconds since 1970
local HALF_AN_HOUR, DAY = 1800000, 86400000

local function announce(kind, id) redis.call('PUBLISH', key.CHANGES, kind .. ':' .. id) end

-- One more of a counter of measures.py: "<its name>:<the values of its labels, with colons between>".
local function count(what) redis.call('HINCRBY', key.MEASUREMENTS, what, 1) end

local function used_memory() return tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)')) end
