-- Reads where a tenant stands, without changing anything.
-- KEYS sorted sets as in admit.lua, one a service
-- ARGV 1 window in microseconds
-- Returns for each key two numbers: requests counted now, microseconds until the oldest leaves (0 when none)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[1])
local after = string.format('(%.0f', now - window)

local answer = {}
for _, key in ipairs(KEYS) do
  local oldest = redis.call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  answer[#answer + 1] = redis.call('ZCOUNT', key, after, '+inf')
  answer[#answer + 1] = oldest[2] and oldest[2] + window - now or 0
end
return answer
