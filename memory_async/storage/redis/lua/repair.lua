-- Takes entries out of the index of the namespace whose record is gone, or is another by now.
-- KEYS: the index, then for each entry the header of the session, or the metas. ARGV: for each entry
-- the entry, "h" or the record's field, and created_at. Returns how many went.

local removed = 0
for i = 2, #KEYS do
  local at = 3 * (i - 2)
  local found = redis.call('HGET', KEYS[i], ARGV[at + 2])
  local f = {}
  for each in string.gmatch((found or '') .. '\0', '([^%z]*)%z') do f[#f + 1] = each end
  local created = ARGV[at + 2] == 'h' and f[5] or f[3]
  if not found or created ~= ARGV[at + 3] then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[at + 1])
  end
end
return removed
