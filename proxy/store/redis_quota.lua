-- Quota that replicas share: every step of `proxy/store/port.py`, atomically and by Redis' own clock.
--
-- A process is an `owner`. For every counter Redis keeps the sum of all owners and each owner's own
-- part, so that an owner who has lost touch replaces its part by what it knows (`set`), and one that
-- died can be buried without anybody else's part being touched.
--
-- KEYS[1]  the prefix of all keys; its hash tag puts them into one slot
-- ARGV[1]  owner
-- ARGV[2]  session: how often this owner has connected; a batch of an older one is not carried out
-- ARGV[3]  sequence: the number of this batch in its session
-- ARGV[4]  the epoch that the owner knows, or a new one's name when Redis has none
-- ARGV[5]  `ask`, or `sync` for the batches that replace the owner's part, or `synced` for the last
-- ARGV[6]  JSON: [[number, first second], ...] of the UTC months around now
-- ARGV[7]  JSON: the operations
-- ARGV[8]  JSON, microseconds: how long owners have to find out that Redis came back empty; for how
--          long an owner may be silent before it is taken for dead; and how long a dead one's leases
--          are kept after that, for it may only be cut off
--
-- Keys behind the prefix: `epoch`; `owners` and `gone` (when each was seen); `p:OWNER` (its session
-- and sequence); `w:OWNER` (the counters it holds something of); and for a counter C: `h:C` what is
-- held (open reservations, places and leases), `s:C:LABEL` what is settled in a UTC day or month or
-- ever, `e:C` and `n:C` the entries of the last minute and their sum.

local prefix = KEYS[1]
local owner, session, sequence = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mode = ARGV[5]

local MINUTE_US = 60 * 1000000
local RECOVERY_US, OWNER_US, LEASE_US = unpack(cjson.decode(ARGV[8]))
local DAY_S = 86400
local CROWD = 1000          -- entries of a minute; of more, those of one owner in ...
local STEP_US = 50 * 1000   -- ... so short a time are one, which leaves when the last of them would
local PAGE = 100            -- entries that are read at a time

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now = now_s * 1000000 + tonumber(time[2])

local function text(number)
  return string.format('%.0f', number)
end

-- The epoch is made when there is none: then this Redis is new, or has lost everything.
local epoch = redis.call('GET', prefix .. 'epoch')
if not epoch then
  epoch = ARGV[4] .. ':' .. text(now)
  redis.call('SET', prefix .. 'epoch', epoch)
end
local reply = {'OK', epoch, now}
if epoch ~= ARGV[4] then
  reply[1] = 'EPOCH'
  return reply
end
local age = now - tonumber(string.match(epoch, ':(%d+)$'))
local recovering = age >= 0 and age < RECOVERY_US  -- below 0 the clock was set back since

local mine = prefix .. 'p:' .. owner
local known = redis.call('HMGET', mine, 'session', 'sequence')
local known_session = tonumber(known[1] or 0)
if mode == 'ask' then
  if known_session ~= session or tonumber(known[2] or -1) ~= sequence - 1 then
    reply[1] = 'SYNC'
    return reply
  end
  redis.call('HSET', mine, 'sequence', sequence)
else
  if known_session > session then
    reply[1] = 'SYNC'
    return reply
  end
  redis.call('HSET', mine, 'session', session, 'sequence', mode == 'synced' and sequence or -1)
  redis.call('ZADD', prefix .. 'owners', now, owner)
  redis.call('ZREM', prefix .. 'gone', owner)
end

-- An owner whose clock is far off learns the time from this reply, and knows the month next time.
local label = {day = text(math.floor(now_s / DAY_S)), month = '', total = '0'}
for _, month in ipairs(cjson.decode(ARGV[6])) do
  if month[2] <= now_s then label.month = text(month[1]) end
end
reply[4], reply[5] = label.day, label.month

local function held_key(counter) return prefix .. 'h:' .. counter end
local function settled_key(counter, of) return prefix .. 's:' .. counter .. ':' .. of end
local function entries_key(counter) return prefix .. 'e:' .. counter end
local function sum_key(counter) return prefix .. 'n:' .. counter end

-- Counters begin with their unit and window: `tokens:day:key:web`.
local function unit_and_window(counter)
  return string.match(counter, '^([%w_]+):(%w+):')
end

local function entry_of(line)
  local at, amount, who = string.match(line, '^(%d+):(%d+):(.*)$')
  return tonumber(at), tonumber(amount), who
end

local function slide(counter)
  local entries, gone = entries_key(counter), 0
  while true do
    local head = redis.call('LINDEX', entries, 0)
    if not head then break end
    local at, amount = entry_of(head)
    if at > now - MINUTE_US then break end
    redis.call('LPOP', entries)
    gone = gone + amount
  end
  if gone > 0 then return redis.call('DECRBY', sum_key(counter), text(gone)) end
  return tonumber(redis.call('GET', sum_key(counter)) or 0)
end

local function settled(counter, window)
  if window == 'now' then return 0 end
  if window == 'minute' then return slide(counter) end
  return tonumber(redis.call('HGET', settled_key(counter, label[window]), 'sum') or 0)
end

local function keep_a_while(key, window)
  if window == 'day' then redis.call('EXPIRE', key, 3 * DAY_S) end
  if window == 'month' then redis.call('EXPIRE', key, 40 * DAY_S) end
end

local function enter(entries, amount, who)
  local at = now
  if redis.call('LLEN', entries) >= CROWD then
    at = math.ceil(now / STEP_US) * STEP_US
    local last = redis.call('LRANGE', entries, -4, -1)
    for place, line in ipairs(last) do
      local of_at, of_amount, of_who = entry_of(line)
      if of_at == at and of_who == who then
        line = text(at) .. ':' .. text(of_amount + amount) .. ':' .. who
        redis.call('LSET', entries, place - 1 - #last, line)
        return
      end
    end
  end
  redis.call('RPUSH', entries, text(at) .. ':' .. text(amount) .. ':' .. who)
end

local function settle(counter, window, amount, who)
  if amount <= 0 or window == 'now' then return end
  if window == 'minute' then
    local entries, sum = entries_key(counter), sum_key(counter)
    enter(entries, amount, who)
    redis.call('INCRBY', sum, text(amount))
    redis.call('EXPIRE', entries, 120)
    redis.call('EXPIRE', sum, 120)
    return
  end
  local key = settled_key(counter, label[window])
  local sum = redis.call('HINCRBY', key, 'sum', text(amount))
  redis.call('HINCRBY', key, who, text(amount))
  if sum == amount then keep_a_while(key, window) end
end

local function hold(counter, amount)
  local key = held_key(counter)
  redis.call('HINCRBY', key, 'open', text(amount))
  if redis.call('HINCRBY', key, 'o:' .. owner, text(amount)) == amount then
    redis.call('SADD', prefix .. 'w:' .. owner, counter)
  end
  redis.call('EXPIRE', key, DAY_S)
end

-- Replaces one owner's part of a sum by `value`.
local function replace(key, sum, field, value)
  local was = tonumber(redis.call('HGET', key, field) or 0)
  if was == value then return end
  redis.call('HINCRBY', key, sum, text(value - was))
  if value == 0 then redis.call('HDEL', key, field) else redis.call('HSET', key, field, text(value)) end
end

local function standing_of(counter, window)
  local of = settled(counter, window)
  local held = redis.call('HMGET', held_key(counter), 'open', 'lease')
  return of, tonumber(held[1] or 0), tonumber(held[2] or 0)
end

-- How many microseconds from now the minute's newest entry leaves it.
local function empty_us(counter, window)
  if window ~= 'minute' then return 0 end
  local last = redis.call('LINDEX', entries_key(counter), -1)
  if not last then return 0 end
  return entry_of(last) + MINUTE_US - now
end

-- How many microseconds from now `amount` will have left the minute.
local function free_us(counter, window, amount)
  if window ~= 'minute' then return 0 end
  local freed, start = 0, 0
  while true do
    local page = redis.call('LRANGE', entries_key(counter), start, start + PAGE - 1)
    for _, line in ipairs(page) do
      local at, of = entry_of(line)
      freed = freed + of
      if freed >= amount then return at + MINUTE_US - now end
    end
    if #page < PAGE then return 0 end
    start = start + PAGE
  end
end

local function take_one(counter, window, amount, is_held)
  if amount > 0 and is_held == 1 then
    hold(counter, amount)
  else
    settle(counter, window, amount, owner)
  end
end

local operations = {}

-- [[counter, window, amount, most, held?], ...]: all or none. `most` below 0: without a limit.
-- Returns 1 and for each what is used, settled, open and when the settled has left; or 0 and for each
-- that is over its place in the list, the same, and when there is room; or 2 while owners are coming
-- back. What is used has leases in it, which come back to nobody.
function operations.take(asked)
  if recovering then return {2} end
  local found, over = {1}, {0}
  for place, each in ipairs(asked) do
    local counter, window, amount, most = each[1], each[2], each[3], each[4]
    local of, open, lease = standing_of(counter, window)
    local used, empty = of + open + lease, empty_us(counter, window)
    if most >= 0 and used + amount > most then
      local room = free_us(counter, window, used + amount - most)
      for _, fact in ipairs({place, used, of, open, empty, room}) do over[#over + 1] = fact end
    end
    if each[5] == 1 then
      open = open + amount
    elseif amount > 0 then
      of, empty = of + amount, MINUTE_US
    end
    for _, fact in ipairs({used + amount, of, open, empty}) do found[#found + 1] = fact end
  end
  if #over > 1 then return over end
  for _, each in ipairs(asked) do take_one(each[1], each[2], each[3], each[5]) end
  return found
end

-- [[counter, window, amount, held?], ...]: was let in by the owner itself, whatever there is.
function operations.note(taken)
  for _, each in ipairs(taken) do take_one(each[1], each[2], each[3], each[4]) end
  return 1
end

-- [[[counter, amount], ...], [[counter, window, amount], ...]]: what is held no longer, and what was
-- spent in the end.
function operations.settle(releases, spent)
  for _, each in ipairs(releases) do
    local counter, amount = each[1], each[2]
    if amount > 0 then
      local key = held_key(counter)
      redis.call('HINCRBY', key, 'open', text(-amount))
      if redis.call('HINCRBY', key, 'o:' .. owner, text(-amount)) == 0 then
        redis.call('HDEL', key, 'o:' .. owner)
        if redis.call('HEXISTS', key, 'l:' .. owner) == 0 then
          redis.call('SREM', prefix .. 'w:' .. owner, counter)
        end
      end
    end
  end
  for _, each in ipairs(spent) do settle(each[1], each[2], each[3], owner) end
  return 1
end

-- [counter, window, most, had]: a share of the limit to spend while Redis is gone; all owners
-- together have a hundredth of it. Returns how much the owner may spend, or -1 when it is too early
-- to say. Until the owner says that it has heard of it, what it `had` stays set aside.
function operations.lease(counter, window, most, had)
  if recovering then return -1 end
  local of = settled(counter, window)
  local key = held_key(counter)
  local held = redis.call('HMGET', key, 'open', 'lease', 'l:' .. owner)
  local open, leases, own = tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
  local hundredth = math.floor(most / 100)
  local share = math.floor(hundredth / math.max(1, redis.call('ZCARD', prefix .. 'owners')))
  local others = leases - own
  local granted = math.max(0, math.min(share, hundredth - others, most - of - open - others))
  local aside = math.max(granted, had)
  replace(key, 'lease', 'l:' .. owner, aside)
  if aside > 0 then
    redis.call('SADD', prefix .. 'w:' .. owner, counter)
    redis.call('EXPIRE', key, DAY_S)
  end
  return granted
end

-- [counter, window, label, settled, open, lease]: exactly this is the owner's part.
function operations.set(counter, window, of, spent, open, lease)
  local key = held_key(counter)
  replace(key, 'open', 'o:' .. owner, open)
  replace(key, 'lease', 'l:' .. owner, lease)
  if open + lease > 0 then
    redis.call('SADD', prefix .. 'w:' .. owner, counter)
    redis.call('EXPIRE', key, DAY_S)
  end
  if of ~= '' then
    local place = settled_key(counter, of)
    replace(place, 'sum', owner, spent)
    keep_a_while(place, window)
  end
  return 1
end

-- [who, counter, window, label, settled]: exactly this was settled by an owner that is dead. A
-- request that was killed before it made its first attempt was let in all the same: only Redis
-- knows of it.
function operations.inherit(who, counter, window, of, spent)
  local place = settled_key(counter, of)
  if unit_and_window(counter) == 'requests' then
    spent = math.max(spent, tonumber(redis.call('HGET', place, who) or 0))
  end
  replace(place, 'sum', who, spent)
  keep_a_while(place, window)
  return 1
end

-- [ledger, counter, window, label, settled, [who, ...]]: so much was settled by these owners, which
-- are all that are dead of one ledger. One number stands for all of them from now on. It only ever
-- grows: who says less asked the ledger before another one died.
function operations.fold(ledger, counter, window, of, spent, dead)
  local place = settled_key(counter, of)
  for _, who in ipairs(dead) do replace(place, 'sum', who, 0) end
  local together = 'ledger:' .. ledger
  local was = tonumber(redis.call('HGET', place, together) or 0)
  replace(place, 'sum', together, math.max(spent, was))
  keep_a_while(place, window)
  return 1
end

-- [who, counter, [[at, amount], ...]]: exactly these entries of the last minute are the owner's, or
-- those of a dead one whom this Redis has never seen.
function operations.entries(who, counter, given)
  if who ~= owner and (redis.call('EXISTS', prefix .. 'p:' .. who) == 1
      or redis.call('ZSCORE', prefix .. 'gone', who)) then
    return 0
  end
  local all, sum, key = {}, 0, entries_key(counter)
  for _, line in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local at, amount, by = entry_of(line)
    if by ~= who then all[#all + 1] = {at, amount, by} end
  end
  for _, each in ipairs(given) do all[#all + 1] = {each[1], each[2], who} end
  table.sort(all, function(one, other) return one[1] < other[1] end)
  redis.call('DEL', key, sum_key(counter))
  for _, each in ipairs(all) do
    if each[1] > now - MINUTE_US then
      redis.call('RPUSH', key, text(each[1]) .. ':' .. text(each[2]) .. ':' .. each[3])
      sum = sum + each[2]
    end
  end
  if sum > 0 then
    redis.call('SET', sum_key(counter), text(sum), 'EX', 120)
    redis.call('EXPIRE', key, 120)
  end
  return 1
end

-- [who]: a dead owner's reservations are charged in full, and its places are free.
function operations.bury(who)
  if who == owner then return 0 end
  for _, counter in ipairs(redis.call('SMEMBERS', prefix .. 'w:' .. who)) do
    local key = held_key(counter)
    local open = tonumber(redis.call('HGET', key, 'o:' .. who) or 0)
    local _, window = unit_and_window(counter)
    settle(counter, window, open, who)
    replace(key, 'open', 'o:' .. who, 0)
    if not redis.call('HGET', key, 'l:' .. who) then redis.call('SREM', prefix .. 'w:' .. who, counter) end
  end
  redis.call('DEL', prefix .. 'p:' .. who)
  if redis.call('ZREM', prefix .. 'owners', who) == 1 then
    redis.call('ZADD', prefix .. 'gone', now, who)
  end
  return 1
end

local function forget_leases(who)
  for _, counter in ipairs(redis.call('SMEMBERS', prefix .. 'w:' .. who)) do
    replace(held_key(counter), 'lease', 'l:' .. who, 0)
  end
  redis.call('DEL', prefix .. 'w:' .. who)
  redis.call('ZREM', prefix .. 'gone', who)
end

-- []: the owner is alive. Buries those that are not; returns how many it has buried.
function operations.beat()
  redis.call('ZADD', prefix .. 'owners', now, owner)
  local buried = 0
  local silent = redis.call('ZRANGEBYSCORE', prefix .. 'owners', '-inf', text(now - OWNER_US))
  for _, who in ipairs(silent) do buried = buried + operations.bury(who) end
  local gone = redis.call('ZRANGEBYSCORE', prefix .. 'gone', '-inf', text(now - LEASE_US))
  for _, who in ipairs(gone) do forget_leases(who) end
  return buried
end

-- []: the owner ends: whatever it still holds is settled or free, its leases too.
function operations.retire()
  for _, counter in ipairs(redis.call('SMEMBERS', prefix .. 'w:' .. owner)) do
    replace(held_key(counter), 'lease', 'l:' .. owner, 0)
    replace(held_key(counter), 'open', 'o:' .. owner, 0)
  end
  redis.call('DEL', prefix .. 'w:' .. owner, mine)
  redis.call('ZREM', prefix .. 'owners', owner)
  redis.call('ZADD', prefix .. 'gone', now, owner)
  return 1
end

for _, each in ipairs(cjson.decode(ARGV[7])) do
  reply[#reply + 1] = operations[each[1]](unpack(each, 2))
end
return reply
