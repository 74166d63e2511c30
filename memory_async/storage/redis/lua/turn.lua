-- A turn by its run. KEYS: header, turns, heads, runs. ARGV: the run's id.
-- Returns seq and the turn, of a trimmed one the head; or false.

local seq = tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or nil)
local header = redis.call('HGET', KEYS[1], 'h')
if not seq or not header then return false end
local f = {}
for each in string.gmatch(header .. '\0', '([^%z]*)%z') do f[#f + 1] = each end
local trimmed = tonumber(f[8])
if seq > trimmed then return {seq, redis.call('LINDEX', KEYS[2], seq - trimmed - 1)} end
return {seq, redis.call('LINDEX', KEYS[3], seq - 1)}
