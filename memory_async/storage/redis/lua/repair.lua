-- Takes entries out of the index of the namespace whose record is still as it was seen.
-- KEYS: the index, then for each entry three of its partition: header, cursors, heads of a session,
-- or metas twice more of a record. ARGV: for each entry the entry, a field ("" for a session: then
-- the job or "") and what was seen.

local removed = 0
for i = 0, (#ARGV / 4) - 1 do
  local entry, field, job, seen = ARGV[4 * i + 1], ARGV[4 * i + 2], ARGV[4 * i + 3], ARGV[4 * i + 4]
  local header, cursors, heads = KEYS[3 * i + 2], KEYS[3 * i + 3], KEYS[3 * i + 4]
  local is
  if field ~= '' then
    is = redis.call('HGET', header, field) or ''
  else
    is = (redis.call('HGET', header, 'created') or '') .. '/'
      .. (redis.call('HGET', cursors, job) or '') .. '/' .. redis.call('LLEN', heads)
  end
  if is == seen then removed = removed + redis.call('ZREM', KEYS[1], entry) end
end
return removed
