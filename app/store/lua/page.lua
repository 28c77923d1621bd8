-- keys: index
-- args: kind end_before limit:number
-- Up to this many records of an index, newest first, from the end of a range on; and the last id that was looked at, or
-- '' if there is no other. Ids whose record has expired are skipped, but not without end.
local SKIPPED = 1000
local found, looked_at = {}, 0
while #found < limit and looked_at < limit + SKIPPED do
  local wanted = limit - #found
  local ids = redis.call('ZREVRANGEBYLEX', index, end_before, '-', 'LIMIT', 0, wanted)
  looked_at = looked_at + #ids
  for _, id in ipairs(ids) do
    local hash = redis.call('HGETALL', key.record(kind, id))
    if #hash > 0 then found[#found + 1] = hash end
    end_before = '(' .. id
  end
  if #ids < wanted then return {found, ''} end
end
return {found, string.sub(end_before, 2)}
