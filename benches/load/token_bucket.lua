-- A token bucket, as people keep one in Redis: a million at once, a million a second. KEYS[1] is whose it is; 1 is allowed.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(bucket[1]) or 1000000, tonumber(bucket[2]) or now
level = math.min(1000000, level + (now - at) * 1000)
if level < 1 then return 0 end
redis.call('HSET', KEYS[1], 'level', level - 1, 'at', now)
redis.call('PEXPIRE', KEYS[1], 2000)
return 1
