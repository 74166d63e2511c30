-- Adds entries to an index in another slot than their records: before the records are written.
-- KEYS: the index, who is adding, what is being removed. ARGV: the writer's mark, then entries.
-- Returns the time, which with entry and mark names a line of "who is adding".

local time = redis.call('TIME')
local now = string.format('1%011.0f%06.0f', tonumber(time[1]), tonumber(time[2]))
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 0, ARGV[i])
  redis.call('ZADD', KEYS[2], 0, ARGV[i] .. '\0' .. now .. ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[i])
end
return now
