-- keys: pairs_of_keys...
-- For each API key and the episode after it, as they are at one moment: the key's digest and whether it is revoked, and
-- the state of the episode.
local found = {}
for i = 1, #pairs_of_keys, 2 do
  local api_key = redis.call('HMGET', pairs_of_keys[i], 'digest', 'revoked')
  found[#found + 1] = api_key[1]
  found[#found + 1] = api_key[2]
  found[#found + 1] = redis.call('HGET', pairs_of_keys[i + 1], 'state')
end
return found
