-- A stretch of a log.
-- KEYS: header, turns, heads. ARGV: after, before ("" for none), limit ("" for none), "1" for the
-- newest, "1" for trimmed ones too. Returns the first seq, heads of trimmed turns, then the others.

local header = redis.call('HGET', KEYS[1], 'h')
if not header then return {1, {}, {}} end
local f = {}
for each in string.gmatch(header .. '\0', '([^%z]*)%z') do f[#f + 1] = each end
local last, trimmed = tonumber(f[7]), tonumber(f[8])
local from, to = tonumber(ARGV[1]) + 1, last
if ARGV[2] ~= '' then to = math.min(to, tonumber(ARGV[2]) - 1) end
if ARGV[5] ~= '1' then from = math.max(from, trimmed + 1) end
if ARGV[3] ~= '' then
  local limit = tonumber(ARGV[3])
  if ARGV[4] == '1' then from = math.max(from, to - limit + 1)
  else to = math.min(to, from + limit - 1) end
end
local heads, turns = {}, {}
if from <= math.min(to, trimmed) then
  heads = redis.call('LRANGE', KEYS[3], from - 1, math.min(to, trimmed) - 1)
end
if math.max(from, trimmed + 1) <= to then
  turns = redis.call('LRANGE', KEYS[2], math.max(from, trimmed + 1) - trimmed - 1, to - trimmed - 1)
end
return {from, heads, turns}
