-- Ends one request that an engine handled: adds it to today's counters, and its record to those that wait for the
-- database, in one step.
-- KEYS 1 hash of the tenant's counters of one day, 2 stream of waiting records
-- ARGV 1 service, 2 tokens, 3 units, 4 cost, 5 seconds to keep the counters, 6 the record as JSON
redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':count', 1)
redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':tokens', ARGV[2])
redis.call('HINCRBYFLOAT', KEYS[1], ARGV[1] .. ':units', ARGV[3])
redis.call('HINCRBYFLOAT', KEYS[1], ARGV[1] .. ':cost', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return redis.call('XADD', KEYS[2], '*', 'record', ARGV[6])
