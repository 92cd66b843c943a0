-- Hands the oldest waiting records to the one gateway that writes them to the database. The lease only saves double
-- work: writing a record twice does no harm.
-- KEYS 1 stream of waiting records, 2 the lease
-- ARGV 1 name of the asking gateway, 2 length of the lease in milliseconds, 3 how many records
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
  return {}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])
