-- The last step: take out marked entries, unless somebody has added them since they were marked.
-- KEYS: the index, what is being removed. ARGV: the remover's mark, then entries. Returns how many.

local removed = 0
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[1] then
    redis.call('HDEL', KEYS[2], ARGV[i])
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
