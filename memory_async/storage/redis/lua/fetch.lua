-- Rows by address, of one moment.
-- KEYS: the header of each session, or two of each record (metas, payloads). ARGV: "session", or
-- "record" and the field of each record. Returns the time, then a row each (false: there is none).

local rows = {redis.call('TIME')}
if ARGV[1] == 'session' then
  for i = 1, #KEYS do
    local row = redis.call('HGETALL', KEYS[i])
    rows[#rows + 1] = #row > 0 and row
  end
else
  for i = 1, #KEYS, 2 do
    local field = ARGV[(i + 3) / 2]
    local meta = redis.call('HGET', KEYS[i], field)
    rows[#rows + 1] = meta and {meta, redis.call('HGET', KEYS[i + 1], field)}
  end
end
return rows
