-- Admits or refuses one request under all limits that apply to it, on this server's clock, and opens its entry in the
-- ledger: all or nothing. The states of limits:
--   requests     sorted set: request id, by time
--   units        sorted set: request id .. ':' .. amount, by time; beside it, under KEY:sum, the sum of the amounts
--   concurrency  set of request ids
--   spend        hash of one month: since (when it began), base (spent before that, by the database; absent: not known),
--                used (held and spent since), version (changed whenever the base has to be read again)
-- KEYS 1 hash of the worker's entries, 2 sorted set of leases, then one a limit
-- ARGV 1 request id, 2 entry, 3 worker, 4 lease to renew in microseconds (0: none), 5 "ask", or how many microseconds
--   ago the worker admitted it by itself, 6 and 7 begin and end of the month; then for each limit: measure, maximum,
--   window, amount, and for spend: "VERSION BASE" to keep, "? BASE" to assume this once, or nothing
-- Returns {code, now, index, wait, version, then for each limit: amount in use, microseconds until some of it is free}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local asked = ARGV[5] == 'ask'
local at = asked and now or now - ARGV[5]
local month_begin, month_end = tonumber(ARGV[6]), tonumber(ARGV[7])

local function oldest_leaves(key, window)
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return oldest[2] and oldest[2] + window - now or 0
end

local function amount_of(member)
  return tonumber(string.match(member, ':(%d+)$'))
end

local check = {}

function check.requests(key, maximum, window, amount)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  local used = redis.call('ZCARD', key)
  if used + amount <= maximum then
    return used
  end
  -- More than the limit are counted where the limit was lowered: then several have to leave first.
  local last = redis.call('ZRANGE', key, used - maximum, used - maximum, 'WITHSCORES')
  return used, last[2] and last[2] + window - now or window
end

function check.units(key, maximum, window, amount)
  local left = redis.call('ZRANGEBYSCORE', key, '-inf', now - window)
  if #left > 0 then
    local sum = 0
    for _, member in ipairs(left) do
      sum = sum + amount_of(member)
    end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
    redis.call('DECRBY', key .. ':sum', sum)
  end
  local used = tonumber(redis.call('GET', key .. ':sum') or 0)
  local over, first = used + amount - maximum, 0
  if over <= 0 then
    return used
  end
  while true do
    local some = redis.call('ZRANGE', key, first, first + 99, 'WITHSCORES')
    if #some == 0 then
      return used, window
    end
    for i = 1, #some, 2 do
      over = over - amount_of(some[i])
      if over <= 0 then
        return used, some[i + 1] + window - now
      end
    end
    first = first + 100
  end
end

function check.concurrency(key, maximum, _, amount)
  local used = redis.call('SCARD', key)
  if used + amount <= maximum then
    return used
  end
  return used, 1000000
end

function check.spend(key, maximum, _, amount, given)
  local since, base, used, version = unpack(redis.call('HMGET', key, 'since', 'base', 'used', 'version'))
  if not since then
    since = now - now % 1000 -- the database keeps milliseconds
    redis.call('HSET', key, 'since', since)
    redis.call('PEXPIRE', key, 3456000000) -- 40 days
  end
  if not base then
    local for_version, told = string.match(given, '^(%S+) (%d+)$')
    if not told or (for_version ~= '?' and for_version ~= (version or '0')) then
      return nil, tonumber(since), tonumber(version or 0)
    end
    base = told
    if for_version ~= '?' then
      redis.call('HSET', key, 'base', base)
    end
  end
  local total = base + (used or 0)
  if total + amount <= maximum then
    return total
  end
  return total, month_end - now
end

local count = {}

function count.requests(key, window)
  redis.call('ZADD', key, at, ARGV[1])
  redis.call('PEXPIRE', key, math.ceil(window / 1000))
end

function count.units(key, window, amount)
  if redis.call('ZADD', key, at, ARGV[1] .. ':' .. amount) == 1 then
    redis.call('INCRBY', key .. ':sum', amount)
  end
  redis.call('PEXPIRE', key, math.ceil(window / 1000))
  redis.call('PEXPIRE', key .. ':sum', math.ceil(window / 1000))
end

function count.concurrency(key)
  redis.call('SADD', key, ARGV[1])
end

function count.spend(key, _, amount)
  -- What was admitted before the count began is in the database's sum, not in this one.
  local since = redis.call('HGET', key, 'since')
  if since and at >= tonumber(since) then
    redis.call('HINCRBY', key, 'used', amount)
  end
end

local answer = {1, now, 0, 0, 0}
if asked then
  for i = 3, #KEYS do
    local a = 5 * i - 7
    local measure, maximum, window, amount = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    if measure == 'spend' and (now < month_begin or now >= month_end) then
      return {3, now, i - 3, 0, 0}
    end
    local used, wait, version = check[measure](KEYS[i], maximum, window, amount, ARGV[a + 4])
    if not used then
      return {2, now, i - 3, wait, version}
    end
    if wait and wait > answer[4] then
      answer[1], answer[3], answer[4] = 0, i - 3, wait
    end
    answer[#answer + 1] = used
    answer[#answer + 1] = 0
  end
elseif redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  -- Told twice, or admitted here before and the answer was lost on its way.
  local known = string.match(redis.call('HGET', KEYS[1], ARGV[1]), '^%d+')
  return {1, tonumber(known) or at, 0, 0, 0}
end

local admitted = answer[1] == 1
for i = 3, #KEYS do
  local a = 5 * i - 7
  local measure, window, amount = ARGV[a], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  if admitted and (window == 0 or at > now - window) then
    count[measure](KEYS[i], window, amount)
  end
  if asked then
    local state = 2 * i
    if admitted then
      answer[state] = answer[state] + amount
    end
    if window > 0 then
      answer[state + 1] = oldest_leaves(KEYS[i], window)
    elseif measure == 'spend' then
      answer[state + 1] = month_end - now
    end
  end
end
if admitted then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', at) .. ARGV[2])
  if ARGV[4] ~= '0' then
    redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
    redis.call('PERSIST', KEYS[1])
  end
  answer[2] = at
end
return answer
