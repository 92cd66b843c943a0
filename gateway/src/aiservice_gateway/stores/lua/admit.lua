-- Admits or refuses one request: a sliding window, exact, on this server's clock.
-- KEYS 1 sorted set of the tenant's counted requests for one service: member = request id, score = microseconds
-- ARGV 1 limit, 2 window in microseconds, 3 request id
-- Returns {1 or 0, requests counted now, microseconds until the oldest that matters leaves the window}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local count = redis.call('ZCARD', KEYS[1])
if count >= limit then
  -- More than the limit are counted where the limit was lowered: then several have to leave first.
  local oldest = redis.call('ZRANGE', KEYS[1], count - limit, count - limit, 'WITHSCORES')
  return {0, count, oldest[2] + window - now}
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {1, count + 1, oldest[2] + window - now}
