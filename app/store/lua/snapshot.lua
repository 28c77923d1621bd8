-- args: pattern apart
-- What Redis keeps by names like this at one moment: name, value as DUMP gives it, and milliseconds until it expires
-- (-1: never), in turn; but for names that begin with one of ``apart``, a JSON list.
local found, seen, cursor, except = {}, {}, '0', cjson.decode(apart)
local function is_apart(name)
  for _, start in ipairs(except) do
    if string.sub(name, 1, #start) == start then return true end
  end
  return false
end
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
  cursor = page[1]
  for _, name in ipairs(page[2]) do
    if not seen[name] and not is_apart(name) then
      seen[name] = true
      found[#found + 1] = name
      found[#found + 1] = redis.call('DUMP', name)
      found[#found + 1] = redis.call('PTTL', name)
    end
  end
until cursor == '0'
return found
