-- Renews a worker's lease, and finds the workers whose lease has run out.
-- KEYS 1 sorted set of leases, 2 hash of the worker's entries
-- ARGV 1 worker, 2 length of the lease in microseconds; 0 ends it at once
-- Returns the names of the others whose lease has run out
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PERSIST', KEYS[2])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
for i = #dead, 1, -1 do
  if dead[i] == ARGV[1] then
    table.remove(dead, i)
  end
end
return dead
