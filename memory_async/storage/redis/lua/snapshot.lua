-- What a run starts from: the header, its turns, and a record if its keys are given.
-- KEYS: header, cursors, values, heads, turns, and metas, payloads. ARGV: how many of the last turns
-- ("" for all), a job's name or "", the record's field. Returns header or false, first seq, sizes
-- and text of heads, sizes and text of payloads, and time, meta, payload of the record.

local function joined(key, from, to)
  local parts = from <= to and redis.call('LRANGE', key, from, to) or {}
  local sizes = {}
  for i = 1, #parts do sizes[i] = #parts[i] end
  return table.concat(sizes, ','), table.concat(parts)
end

local row = redis.call('HMGET', KEYS[1],
  'user', 'agent', 'keep', 'created', 'updated', 'version', 'payload')
local answer = {false, 1, '', '', '', ''}
if row[6] then
  local last = redis.call('LLEN', KEYS[4])
  local trimmed = last - redis.call('LLEN', KEYS[5])
  row[8], row[9] = last, trimmed
  row[10] = redis.call('HGETALL', KEYS[2])
  row[11] = redis.call('HGETALL', KEYS[3])
  local after = ARGV[1] == '' and 0 or last - tonumber(ARGV[1])
  if ARGV[2] ~= '' then
    local through = redis.call('HGET', KEYS[2], ARGV[2])
    if through then after = math.min(after, tonumber(through)) end
  end
  after = math.max(after, trimmed)
  local sizes, heads = joined(KEYS[4], after, last - 1)
  local lengths, turns = joined(KEYS[5], after - trimmed, last - 1 - trimmed)
  answer = {row, after + 1, sizes, heads, lengths, turns}
end
if KEYS[6] then
  local time = redis.call('TIME')
  answer[7] = string.format('1%011.0f%06.0f', tonumber(time[1]), tonumber(time[2]))
  answer[8] = redis.call('HGET', KEYS[6], ARGV[3])
  answer[9] = answer[8] and redis.call('HGET', KEYS[7], ARGV[3])
end
return answer
