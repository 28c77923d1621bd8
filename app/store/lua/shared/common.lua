-- The time by Redis' own clock, and the notice that follows every change of a record.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)  -- milliseconds since 1970
local HALF_AN_HOUR, DAY = 1800000, 86400000

local function announce(kind, id) redis.call('PUBLISH', key.CHANGES, kind .. ':' .. id) end
