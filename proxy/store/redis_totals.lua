-- Takes what one replica used, or refuses it where this Redis is not the one it spoke to last.
-- KEYS: marker, replicas, names, the sums to fill, the sums that they become then
-- ARGV: accepted markers, or *; the next marker; replica; now; seconds to keep all this;
--       period, or nothing; when its sums expire; begin them anew; their fields and values
if ARGV[1] ~= '*' then
  local held, known = redis.call('GET', KEYS[1]), false
  for word in string.gmatch(ARGV[1], '%S+') do
    known = known or word == held
  end
  if not known then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4] - ARGV[5])
if ARGV[6] == '' then
  return 1
end
if ARGV[8] == '1' then
  redis.call('DEL', KEYS[4])
end
if #ARGV == 8 then
  redis.call('SREM', KEYS[3], ARGV[6])
  return 1
end
redis.call('HSET', KEYS[4], unpack(ARGV, 9))
redis.call('EXPIREAT', KEYS[4], ARGV[7])
if KEYS[4] ~= KEYS[5] then
  redis.call('RENAME', KEYS[4], KEYS[5])
end
redis.call('SADD', KEYS[3], ARGV[6])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return 1
