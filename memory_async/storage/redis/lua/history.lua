-- A stretch of a log: heads and payloads each as the sizes of its parts and the parts joined, which
-- is one reply instead of thousands.
-- KEYS: heads, turns. ARGV: after, before ("" for none), limit ("" for none), "1" for the newest,
-- "1" for trimmed ones too. Returns first seq, then sizes and text of either.

local function joined(key, from, to)
  local parts = from <= to and redis.call('LRANGE', key, from, to) or {}
  local sizes = {}
  for i = 1, #parts do sizes[i] = #parts[i] end
  return table.concat(sizes, ','), table.concat(parts)
end

local last = redis.call('LLEN', KEYS[1])
local trimmed = last - redis.call('LLEN', KEYS[2])
local from, to = tonumber(ARGV[1]) + 1, last
if ARGV[2] ~= '' then to = math.min(to, tonumber(ARGV[2]) - 1) end
if ARGV[5] ~= '1' then from = math.max(from, trimmed + 1) end
if ARGV[3] ~= '' then
  local limit = tonumber(ARGV[3])
  if ARGV[4] == '1' then from = math.max(from, to - limit + 1)
  else to = math.min(to, from + limit - 1) end
end
if from > to then return {1, '', '', '', ''} end
local sizes, heads = joined(KEYS[1], from - 1, to - 1)
local lengths, turns = joined(KEYS[2], math.max(from - 1 - trimmed, 0), to - 1 - trimmed)
return {from, sizes, heads, lengths, turns}
