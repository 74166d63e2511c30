-- Rows by address, of one moment.
-- KEYS: five of each session (header, cursors, values, heads, turns), or two of each record (metas,
--       payloads). ARGV: "session", or "record" and the field of each record.
-- Returns the time, then a row each (false where there is none).

local time = redis.call('TIME')
local rows = {string.format('1%011.0f%06.0f', tonumber(time[1]), tonumber(time[2]))}
if ARGV[1] == 'session' then
  for i = 1, #KEYS, 5 do
    local row = redis.call('HMGET', KEYS[i],
      'user', 'agent', 'keep', 'created', 'updated', 'version', 'payload')
    if row[6] then
      local last = redis.call('LLEN', KEYS[i + 3])
      row[8], row[9] = last, last - redis.call('LLEN', KEYS[i + 4])
      row[10] = redis.call('HGETALL', KEYS[i + 1])
      row[11] = redis.call('HGETALL', KEYS[i + 2])
    else
      row = false
    end
    rows[#rows + 1] = row
  end
else
  for i = 1, #KEYS, 2 do
    local field = ARGV[(i + 3) / 2]
    local meta = redis.call('HGET', KEYS[i], field)
    rows[#rows + 1] = meta and {meta, redis.call('HGET', KEYS[i + 1], field)}
  end
end
return rows
