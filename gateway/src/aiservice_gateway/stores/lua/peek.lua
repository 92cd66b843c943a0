-- Reads where a tenant stands, without changing anything. The states of limits are those of admit.lua.
-- KEYS one a limit
-- ARGV for each limit: measure, window in microseconds
-- Returns {now, then for each limit: amount in use (-1 where it is not known), microseconds until some of it is free}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local answer = {now}
for i, key in ipairs(KEYS) do
  local measure, window = ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  local used, free = 0, 0
  if measure == 'concurrency' then
    used = redis.call('SCARD', key)
  elseif measure == 'spend' then
    local base, since_then = unpack(redis.call('HMGET', key, 'base', 'used'))
    used = base and base + (since_then or 0) or -1
  else
    local after = string.format('(%.0f', now - window)
    if measure == 'requests' then
      used = redis.call('ZCOUNT', key, after, '+inf')
    else
      used = tonumber(redis.call('GET', key .. ':sum') or 0)
      for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', string.sub(after, 2))) do
        used = used - tonumber(string.match(member, ':(%d+)$'))
      end
    end
    local oldest = redis.call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    free = oldest[2] and oldest[2] + window - now or 0
  end
  answer[#answer + 1] = used
  answer[#answer + 1] = free
end
return answer
