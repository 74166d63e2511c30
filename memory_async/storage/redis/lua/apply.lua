-- One batch of writes: everything is checked first, for a script that fails is not rolled back.
--
-- KEYS: of the partition header, cursors, values, heads, turns, runs, metas, payloads, index; then,
--       where it can be written in the same script, the index of the namespace.
-- ARGV: the partition, the session's time to live in ms ("" for none), how many entries the index of
--       the namespace holds already and these, then the writes.
-- Payloads pass through unread. Times are strings of 18 digits, which order as they are; `when` is
-- "-" (absent), "*" (always) or "=" and a version; "" stands for none.

local HEADER, CURSORS, VALUES = KEYS[1], KEYS[2], KEYS[3]
local HEADS, TURNS, RUNS = KEYS[4], KEYS[5], KEYS[6]
local METAS, PAYLOADS, INDEX, GLOBAL = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local partition, ttl = ARGV[1], ARGV[2]
local call = redis.call

local position = 2
local function take()
  position = position + 1
  return ARGV[position]
end

local ensured = {}
for _ = 1, tonumber(take()) do
  ensured[take()] = true
end

local time = call('TIME')
local now = string.format('1%011.0f%06.0f', tonumber(time[1]), tonumber(time[2]))

-- A meta is version, expires_at, created_at, updated_at, user, status and tags, between NULs.
local function fields(meta)
  local found, from = {}, 1
  while true do
    local to = string.find(meta, '\0', from, true)
    if not to then break end
    found[#found + 1] = string.sub(meta, from, to - 1)
    from = to + 1
  end
  found[#found + 1] = string.sub(meta, from)
  return found
end

local function place(created, id)
  return '\0' .. created .. id .. '\0' .. partition
end

local function entries(kind, id, meta)
  local f = fields(meta)
  local where = place(f[3], id)
  local found = {[kind .. ':a' .. where] = true, [kind .. ':i' .. id .. where] = true}
  if f[5] ~= '' then found[kind .. ':u' .. f[5] .. where] = true end
  if f[6] ~= '' then found[kind .. ':s' .. f[6] .. where] = true end
  for i = 7, #f do found[kind .. ':t' .. f[i] .. where] = true end
  return found
end

local function is_expired(f)
  return f[2] ~= '' and f[2] <= now
end

local stored = {}
local function version_of(kind, id)
  local meta = call('HGET', METAS, kind .. '\0' .. id)
  stored[kind .. '\0' .. id] = meta
  if not meta then return false end
  local f = fields(meta)
  return not is_expired(f) and f[1]
end

-- The session, as it is and as it becomes.
local found = call('HMGET', HEADER, 'version', 'user', 'created', 'updated', 'keep')
local exists = found[1] and true or false
local version, user, created, updated, keep = found[1], found[2], found[3], found[4], found[5]
local last = call('LLEN', HEADS)
local born = exists and created

local function session_entries(id, owner, at)
  local where = place(at, id)
  local all = {'session:a' .. where, 'session:i' .. id .. where}
  if owner ~= '' then all[3] = 'session:u' .. owner .. where end
  return all
end

local function lag_entry(job)
  return 'session:l' .. job .. place(created, string.sub(partition, 9))
end

-- --- read the writes, check owners ---

local ops = {}
local append
while position < #ARGV do
  local op = {type = take()}
  if op.type == 'append' or op.type == 'header' then
    op.id, op.user, op.agent, op.keep = take(), take(), take(), take()
    op.created, op.updated, op.version, op.payload = take(), take(), take(), take()
    if exists and op.user ~= user then return {'owner', user} end
    if op.type == 'header' then
      op.when = take()
    else
      append = op
      op.run, op.head, op.turn, op.at, op.due = take(), take(), take(), take(), {}
      for i = 1, tonumber(take()) do op.due[i] = take() end
    end
  elseif op.type == 'put' then
    op.kind, op.id, op.meta, op.payload, op.version, op.when =
      take(), take(), take(), take(), take(), take()
  elseif op.type == 'advance' then
    op.job, op.expected, op.through, op.value, op.created =
      take(), tonumber(take()), tonumber(take()), take(), take()
  elseif op.type == 'delete' or op.type == 'expect' then
    op.kind, op.id, op.when = take(), take(), take()
  elseif op.type == 'purge' then
    op.kind, op.id = take(), take()
  elseif op.type == 'drop' then
    op.kind, op.prefix = take(), take()
  elseif op.type == 'trim' then
    op.through = take()
  else
    return redis.error_reply('ERR memory_async: unknown write ' .. tostring(op.type))
  end
  ops[#ops + 1] = op
end

if append and exists then
  local seq = call('HGET', RUNS, append.run)
  if seq then
    local trimmed = last - call('LLEN', TURNS)
    seq = tonumber(seq)
    local payload = seq > trimmed and call('LINDEX', TURNS, seq - trimmed - 1)
    return {'known', seq, call('LINDEX', HEADS, seq - 1), payload}
  end
end

-- --- check every condition against the state before ---

local added = {}
local function add(entry)
  if not ensured[entry] then added[#added + 1] = entry end
end

for number, op in ipairs(ops) do
  op.todo = true
  if op.type == 'put' or op.type == 'header' then
    local have = version
    if op.type == 'put' then have = version_of(op.kind, op.id) end
    if have == op.version then
      op.todo = false
    elseif (op.when == '-' and have)
      or (string.sub(op.when, 1, 1) == '=' and have ~= string.sub(op.when, 2)) then
      return {'conflict', number, have}
    end
  elseif op.type == 'delete' or op.type == 'expect' then
    local have = version
    if op.kind ~= 'session' then have = version_of(op.kind, op.id) end
    if (op.when == '-' and have)
      or (string.sub(op.when, 1, 1) == '=' and have ~= string.sub(op.when, 2)) then
      return {'conflict', number, have}
    end
    op.todo = have and op.type == 'delete'
  elseif op.type == 'advance' then
    local cursor = exists and call('HGET', CURSORS, op.job)
    if not cursor or tonumber(cursor) ~= op.expected or op.through > last
      or (op.created ~= '' and op.created ~= created) then
      return {'conflict', number, false}
    end
  end
  if op.todo and op.type == 'put' then
    op.entries = entries(op.kind, op.id, op.meta)
    local before = stored[op.kind .. '\0' .. op.id]
    op.before = before and entries(op.kind, op.id, before) or {}
    for entry in pairs(op.entries) do
      if not op.before[entry] then add(entry) end
    end
  elseif op.todo and not born and (op.type == 'append' or op.type == 'header') then
    born, created = op.created, op.created
    for _, entry in ipairs(session_entries(op.id, op.user, born)) do add(entry) end
  end
end

local cursors = {}
if append then
  local flat = call('HGETALL', CURSORS)
  for i = 1, #flat, 2 do cursors[flat[i]] = tonumber(flat[i + 1]) end
  for _, job in ipairs(append.due) do
    if not cursors[job] then
      cursors[job] = 0
      if last > 0 then add(lag_entry(job)) end
    end
  end
  for job, through in pairs(cursors) do
    if through == last then add(lag_entry(job)) end
  end
end

if not GLOBAL and #added > 0 then
  return {'need', added}
end

-- --- write; nothing below may refuse ---

local gone = {}
local function index(command, key, list)
  for from = 1, #list, 500 do
    local arguments = {}
    for i = from, math.min(from + 499, #list) do
      if command == 'ZADD' then arguments[#arguments + 1] = 0 end
      arguments[#arguments + 1] = list[i]
    end
    call(command, key, unpack(arguments))
  end
end

local function forget(entry)
  gone[#gone + 1] = entry
end

local left
if ttl == '' then
  left = call('PTTL', HEADER)
  if left < 0 then left = call('PTTL', METAS) end
else
  left = tonumber(ttl)
end

local function create(op)
  exists, version, user, updated, keep = true, op.version, op.user, op.updated, op.keep
  call('HSET', HEADER, 'version', op.version, 'user', op.user, 'agent', op.agent, 'keep', op.keep,
    'created', op.created, 'updated', op.updated, 'payload', op.payload)
end

local function trim(through)
  local trimmed = last - call('LLEN', TURNS)
  if keep == '1' then return false end
  through = math.min(through, last)
  for _, cursor in ipairs(call('HVALS', CURSORS)) do
    through = math.min(through, tonumber(cursor))
  end
  if through <= trimmed then return false end
  call('LTRIM', TURNS, through - trimmed, -1)
  return true
end

local function remove(kind, id, meta)
  local field = kind .. '\0' .. id
  local lost = {}
  for entry in pairs(entries(kind, id, meta)) do
    lost[#lost + 1] = entry
    forget(entry)
  end
  index('ZREM', INDEX, lost)
  call('HDEL', METAS, field)
  call('HDEL', PAYLOADS, field)
end

local function end_session()
  if not exists then return false end
  local id = string.sub(partition, 9)
  for _, entry in ipairs(session_entries(id, user, created)) do forget(entry) end
  for _, job in ipairs(call('HKEYS', CURSORS)) do forget(lag_entry(job)) end
  call('UNLINK', HEADER, CURSORS, VALUES, HEADS, TURNS, RUNS)
  exists, version, last = false, false, 0
  return true
end

local function drop_all()
  local any = end_session()
  local dropped = call('ZRANGE', INDEX, 0, -1)
  for _, entry in ipairs(dropped) do forget(entry) end
  call('UNLINK', METAS, PAYLOADS, INDEX)
  return any or #dropped > 0
end

local function drop(kind, prefix)
  local start = kind .. ':i' .. prefix
  local any = false
  while true do
    local some = call('ZRANGEBYLEX', INDEX, '[' .. start, '(' .. start .. '\255', 'LIMIT', 0, 500)
    if #some == 0 then return any end
    any = true
    for _, entry in ipairs(some) do
      local id = string.sub(entry, #kind + 3, string.find(entry, '\0', 1, true) - 1)
      remove(kind, id, call('HGET', METAS, kind .. '\0' .. id))
    end
  end
end

if GLOBAL then index('ZADD', GLOBAL, added) end

local did, seq = {}, 0
for number, op in ipairs(ops) do
  local done = op.todo
  if not done then
    done = false
  elseif op.type == 'append' then
    if not exists then create(op) end
    if op.keep == '1' and keep ~= '1' then
      keep = '1'
      call('HSET', HEADER, 'keep', '1')
    end
    if op.at > updated then call('HSET', HEADER, 'updated', op.at) end
    for _, job in ipairs(op.due) do call('HSETNX', CURSORS, job, '0') end
    seq = call('RPUSH', HEADS, op.head)
    call('RPUSH', TURNS, op.turn)
    call('HSET', RUNS, op.run, seq)
    last = seq
  elseif op.type == 'header' then
    if exists then
      updated, version = op.updated, op.version
      call('HSET', HEADER, 'updated', updated, 'version', version, 'payload', op.payload)
    else
      create(op)
    end
  elseif op.type == 'put' then
    local field = op.kind .. '\0' .. op.id
    local fresh, lost = {}, {}
    for entry in pairs(op.entries) do
      if not op.before[entry] then fresh[#fresh + 1] = entry end
    end
    for entry in pairs(op.before) do
      if not op.entries[entry] then
        lost[#lost + 1] = entry
        forget(entry)
      end
    end
    index('ZADD', INDEX, fresh)
    index('ZREM', INDEX, lost)
    call('HSET', METAS, field, op.meta)
    call('HSET', PAYLOADS, field, op.payload)
  elseif op.type == 'advance' then
    call('HSET', CURSORS, op.job, string.format('%.0f', op.through))
    if op.value ~= '' then call('HSET', VALUES, op.job, op.value) end
    if op.through == last then forget(lag_entry(op.job)) end
    trim(last)
  elseif op.type == 'trim' then
    done = exists and trim(op.through == '' and last or tonumber(op.through))
  elseif op.type == 'delete' and op.kind == 'session' then
    done = end_session()
  elseif op.type == 'delete' then
    local meta = call('HGET', METAS, op.kind .. '\0' .. op.id)
    if meta then remove(op.kind, op.id, meta) end
  elseif op.type == 'purge' then
    local meta = call('HGET', METAS, op.kind .. '\0' .. op.id)
    done = meta and is_expired(fields(meta))
    if done then remove(op.kind, op.id, meta) end
  elseif op.kind == '' then
    done = drop_all()
  else
    done = drop(op.kind, op.prefix)
  end
  did[number] = done and 1 or 0
end

if left and left > 0 then
  for i = 1, 9 do redis.pcall('PEXPIRE', KEYS[i], left) end
end

if GLOBAL then
  index('ZREM', GLOBAL, gone)
  gone = {}
end
return {'ok', seq, did, gone, created or ''}
