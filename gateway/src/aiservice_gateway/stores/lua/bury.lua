-- Forgets a dead worker whose entries are all closed. What was closed for it is remembered for a day, in case it was
-- only paused and ends its requests after all.
-- KEYS 1 sorted set of leases, 2 hash of the worker's entries
-- ARGV 1 worker, 2 seconds to remember
local time = redis.call('TIME')
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if lease and tonumber(lease) <= time[1] * 1000000 + time[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return 0
