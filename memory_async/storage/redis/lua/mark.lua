-- The first of three steps that take entries out: mark those that nobody is adding just now.
-- KEYS: who is adding, what is being removed. ARGV: the remover's mark, how many seconds an adder has
-- to write the record, then entries. Returns the entries marked.

local time = redis.call('TIME')
local dead = string.format('1%011.0f%06.0f', tonumber(time[1]) - tonumber(ARGV[2]), tonumber(time[2]))
local marked = {}
for i = 3, #ARGV do
  local entry, free = ARGV[i], true
  local adding = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. entry .. '\0', '(' .. entry .. '\1')
  for _, line in ipairs(adding) do
    if string.sub(line, #entry + 2, #entry + 19) < dead then
      redis.call('ZREM', KEYS[1], line)
    else
      free = false
    end
  end
  if free then
    redis.call('HSET', KEYS[2], entry, ARGV[1])
    marked[#marked + 1] = entry
  end
end
return marked
