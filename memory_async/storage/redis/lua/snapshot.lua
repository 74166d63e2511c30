-- What a run starts from, where a job's cursor says how much that is, or on a cluster.
-- KEYS: header, turns; metas, payloads if a record is wanted. ARGV: how many of the last turns ("" for
-- all), a job's name or "", the record's field. Returns the header, the turns, and the record's meta
-- and payload.

local header = redis.call('HGETALL', KEYS[1])
local answer = {header, {}}
for i = 1, #header, 2 do
  if header[i] == 'h' then
    local f = {}
    for each in string.gmatch(header[i + 1] .. '\0', '([^%z]*)%z') do f[#f + 1] = each end
    local last, trimmed = tonumber(f[7]), tonumber(f[8])
    local after = ARGV[1] == '' and 0 or last - tonumber(ARGV[1])
    for j = 9, #f, 2 do
      if f[j] == ARGV[2] then after = math.min(after, tonumber(f[j + 1])) end
    end
    after = math.max(after, trimmed)
    if after < last then answer[2] = redis.call('LRANGE', KEYS[2], after - trimmed, -1) end
  end
end
if KEYS[3] then
  answer[3] = redis.call('HGET', KEYS[3], ARGV[3])
  answer[4] = redis.call('HGET', KEYS[4], ARGV[3])
end
return answer
