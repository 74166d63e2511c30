-- A stretch of a partition's index, newest first, with the records it names.
-- KEYS: metas, payloads, index. ARGV: kind, from, to, how many (-1: all).
-- Returns the time, then entry, meta and payload of each.

local rows = {redis.call('TIME')}
local found = redis.call('ZREVRANGEBYLEX', KEYS[3], ARGV[3], ARGV[2], 'LIMIT', 0, ARGV[4])
for _, entry in ipairs(found) do
  local from = string.find(entry, '\0', 1, true) + 19
  local id = string.sub(entry, from, string.find(entry, '\0', from, true) - 1)
  local field = ARGV[1] .. '\0' .. id
  rows[#rows + 1] = entry
  rows[#rows + 1] = redis.call('HGET', KEYS[1], field)
  rows[#rows + 1] = redis.call('HGET', KEYS[2], field)
end
return rows
