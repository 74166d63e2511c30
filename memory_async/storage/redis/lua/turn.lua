-- A turn by its run. KEYS: runs, heads, turns. ARGV: the run's id.
-- Returns seq, head and payload (false once trimmed), or false.

local seq = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil)
if not seq then return false end
local trimmed = redis.call('LLEN', KEYS[2]) - redis.call('LLEN', KEYS[3])
local payload = seq > trimmed and redis.call('LINDEX', KEYS[3], seq - trimmed - 1)
return {seq, redis.call('LINDEX', KEYS[2], seq - 1), payload}
