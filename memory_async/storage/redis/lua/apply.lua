-- One batch of writes: everything is checked first, for a script that fails is not rolled back.
--
-- KEYS: of the partition header, turns, heads, runs, metas, payloads, index; then, where it can be
--       written in the same script, the index of the namespace.
-- ARGV: the partition, the session's time to live in ms ("" for none), until when (µs) the entries
--       that follow are sure to stay in the index of the namespace, how many, these; the writes.
-- Payloads pass through unread. Times are strings of 18 digits, which order as they are; `when` is
-- "-" (absent), "*" (always) or "=" and a version; "" stands for none.

local HEADER, TURNS, HEADS, RUNS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local METAS, PAYLOADS, INDEX, GLOBAL = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local partition, ttl = ARGV[1], ARGV[2]
local call = redis.call

local position = 2
local function take()
  position = position + 1
  return ARGV[position]
end

local clock
local function now()
  if not clock then
    local time = call('TIME')
    clock = string.format('1%011.0f%06.0f', tonumber(time[1]), tonumber(time[2]))
  end
  return clock
end

local ensured = {}
local sure = take()
for _ = 1, tonumber(take()) do
  ensured[take()] = true
end
if sure ~= '' and sure < now() then ensured = {} end

-- A header is version, user, agent, keep, created_at, updated_at, last, trimmed, then each job and
-- its cursor; a meta is version, expires_at, created_at, updated_at, user, status and tags: between
-- NULs.
local function fields(packed)
  local found = {}
  for each in string.gmatch(packed .. '\0', '([^%z]*)%z') do found[#found + 1] = each end
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
  return f[2] ~= '' and f[2] <= now()
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
local header = call('HGET', HEADER, 'h')
local exists = header and true or false
local version, user, agent, keep, created, updated = false, nil, nil, nil, nil, nil
local last, trimmed, cursors = 0, 0, {}
if exists then
  local f = fields(header)
  version, user, agent, keep, created, updated = f[1], f[2], f[3], f[4], f[5], f[6]
  last, trimmed = tonumber(f[7]), tonumber(f[8])
  for i = 9, #f, 2 do cursors[f[i]] = tonumber(f[i + 1]) end
end
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
    seq = tonumber(seq)
    if seq > trimmed then return {'known', seq, call('LINDEX', TURNS, seq - trimmed - 1)} end
    return {'known', seq, call('LINDEX', HEADS, seq - 1)}
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
    local cursor = cursors[op.job]
    if not cursor or cursor ~= op.expected or op.through > last
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

if append then
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
  if left == -2 then left = call('PTTL', METAS) end
else
  left = tonumber(ttl)
end

local changed = false
local function create(op)
  exists, changed, version, user, agent = true, true, op.version, op.user, op.agent
  keep, updated = op.keep, op.updated
  call('HSET', HEADER, 'p', op.payload)
end

local function trim(through)
  if keep == '1' then return false end
  through = math.min(through, last)
  for _, cursor in pairs(cursors) do through = math.min(through, cursor) end
  if through <= trimmed then return false end
  call('LTRIM', TURNS, through - trimmed, -1)
  trimmed, changed = through, true
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
  for job in pairs(cursors) do forget(lag_entry(job)) end
  call('UNLINK', HEADER, HEADS, TURNS, RUNS)
  exists, changed, version, last, trimmed, cursors = false, false, false, 0, 0, {}
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

local did, seq, advanced = {}, 0, {}
for number, op in ipairs(ops) do
  local done = op.todo
  if not done then
    done = false
  elseif op.type == 'append' then
    if not exists then create(op) end
    if op.keep == '1' then keep = '1' end
    if op.at > updated then updated = op.at end
    last, changed = last + 1, true
    seq = last
    local head = string.format('[%.0f', seq) .. op.head
    call('RPUSH', TURNS, head .. op.turn .. ']')
    call('RPUSH', HEADS, head .. 'null]')
    call('HSET', RUNS, op.run, seq)
  elseif op.type == 'header' then
    if exists then
      updated, version, changed = op.updated, op.version, true
      call('HSET', HEADER, 'p', op.payload)
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
    cursors[op.job], changed = op.through, true
    if op.value ~= '' then call('HSET', HEADER, 'v' .. op.job, op.value) end
    advanced[op.job] = true
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

for job in pairs(advanced) do
  if cursors[job] == last then forget(lag_entry(job)) end
end

if changed then
  local packed = {version, user, agent, keep, created, updated,
    string.format('%.0f', last), string.format('%.0f', trimmed)}
  for job, cursor in pairs(cursors) do
    packed[#packed + 1] = job
    packed[#packed + 1] = string.format('%.0f', cursor)
  end
  call('HSET', HEADER, 'h', table.concat(packed, '\0'))
end

if left and left > 0 then
  for i = 1, 7 do redis.pcall('PEXPIRE', KEYS[i], left) end
end

if GLOBAL then
  index('ZREM', GLOBAL, gone)
  gone = {}
end
return {'ok', seq, did, gone, created or ''}
