-- Ends one request, once however often it is called: gives back what it held, counts what it used, and adds its record
-- to those that wait for the database. A field of the worker's hash is one request's entry: "TIME ..." while it is open,
-- "x" when a sweeper closed it, empty when it was ended here, and absent when this server has lost it.
-- KEYS 1 hash of the worker's entries, 2 sorted set of leases, 3 hash of the tenant's counters of the day,
--   4 stream of waiting records, then one a limit that the request holds
-- ARGV 1 request id, 2 "settle", "refund" (no engine worked on it), or "sweep" (its worker seems to be dead),
--   3 worker, 4 when it was admitted, 5 service, 6 tokens, 7 units, 8 cost, 9 seconds to keep the counters,
--   10 the record as JSON; then for each limit: measure, window, amount held, amount used
-- Returns 1, or 0 when there was nothing to do
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local id, how, at = ARGV[1], ARGV[2], tonumber(ARGV[4])

local entry = redis.call('HGET', KEYS[1], id)
if entry == '' then
  return 0
end
local open = entry and entry ~= 'x'
if how == 'sweep' then
  local lease = redis.call('ZSCORE', KEYS[2], ARGV[3])
  if not open or (lease and tonumber(lease) > now) then
    return 0
  end
end
redis.call('HSET', KEYS[1], id, how == 'sweep' and 'x' or '')

local finish = {}

function finish.requests(key, window)
  if how == 'refund' then
    redis.call('ZREM', key, id)
  elseif not entry and at > now - window then
    redis.call('ZADD', key, 'NX', at, id)
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
  end
end

function finish.units(key, window, held, used)
  local freed = open and redis.call('ZREM', key, id .. ':' .. held) == 1
  if freed then
    redis.call('DECRBY', key .. ':sum', held)
  end
  -- One whose hold has left the window needs no count any more.
  if used > 0 and at > now - window and (freed or not open) then
    if redis.call('ZADD', key, 'NX', at, id .. ':' .. used) == 1 then
      redis.call('INCRBY', key .. ':sum', used)
    end
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
    redis.call('PEXPIRE', key .. ':sum', math.ceil(window / 1000))
  end
end

function finish.concurrency(key)
  redis.call('SREM', key, id)
end

function finish.spend(key, _, held, used)
  local since = redis.call('HGET', key, 'since')
  if since and at >= tonumber(since) then
    redis.call('HINCRBY', key, 'used', used - (open and held or 0))
  elseif since and used > 0 then
    -- It belongs to what the database sums up, and came too late for the sum that is kept here.
    redis.call('HDEL', key, 'base')
    redis.call('HINCRBY', key, 'version', 1)
  end
end

for i = 5, #KEYS do
  local a = 4 * i - 9
  finish[ARGV[a]](KEYS[i], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]))
end

if how ~= 'refund' then
  local service = ARGV[5]
  local counted = redis.call('HINCRBY', KEYS[3], service .. ':count', entry == 'x' and 0 or 1)
  redis.call('HINCRBY', KEYS[3], service .. ':tokens', ARGV[6])
  redis.call('HINCRBYFLOAT', KEYS[3], service .. ':units', ARGV[7])
  redis.call('HINCRBYFLOAT', KEYS[3], service .. ':cost', ARGV[8])
  if counted <= 1 then
    redis.call('EXPIRE', KEYS[3], ARGV[9])
  end
  redis.call('XADD', KEYS[4], '*', 'record', ARGV[10])
end
return 1
