-- Whether this user may do what the other scripts do: asked when opening, not in mid-write.
-- KEYS: a key of ours that nothing is stored at. Returns the command that is not allowed, or "".

local key = KEYS[1]
local commands = {
  {'TIME'}, {'HGET', key, 'f'}, {'HGETALL', key}, {'LRANGE', key, 0, 0}, {'LINDEX', key, 0},
  {'ZRANGE', key, 0, 0}, {'ZRANGEBYLEX', key, '-', '+'}, {'ZREVRANGEBYLEX', key, '+', '-'},
  {'PTTL', key}, {'HSET', key, 'f', 'v'}, {'PEXPIRE', key, 1000}, {'HDEL', key, 'f'},
  {'UNLINK', key}, {'RPUSH', key, 'v'}, {'LTRIM', key, 1, 0}, {'UNLINK', key},
  {'ZADD', key, 0, 'm'}, {'ZREM', key, 'm'}, {'UNLINK', key},
}
for _, each in ipairs(commands) do
  local answer = redis.pcall(unpack(each))
  if type(answer) == 'table' and answer.err then
    local text = string.upper(answer.err)
    if string.find(text, 'NOPERM', 1, true) or string.find(text, 'ACL FAILURE', 1, true)
      or string.find(text, 'PERMISSION', 1, true)
      or string.find(text, "CAN'T RUN THIS COMMAND", 1, true) then
      redis.pcall('UNLINK', key)
      return each[1] .. ': ' .. answer.err
    end
    return ''
  end
end
return ''
