-- One step on one subject's limits; the arithmetic is that of bucket.py. Amounts are doubles, times microseconds by
-- this server's own clock, so that callers need not agree on the time.
--
-- KEYS  1 bucket: hash of requests, tokens (levels), at (when they held), full (when tokens were last wholly restored)
--       2 slots: sorted set of the calls that run, scored by the end of their lease
-- ARGV  acquire  requests_per_minute  tokens_per_minute  concurrent (0: none)  estimate  slot  lease_ms
--         -> {admitted 0|1, running, 'requests tokens now'}: the levels after an admission, or at a refusal
--       release  requests_per_minute  tokens_per_minute  difference (used - estimate)  at (of the acquire)  slot ('': none)
--       renew    slot  lease_ms

local DEBT, EPSILON, MINUTE = 2, 1e-6, 60 * 1000000
local KEEP_MS = 180000 -- a level is gone after two minutes

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function decayed(level, limit, elapsed)
  if limit == 0 then return 0 end
  local left = math.min(level, DEBT * limit) - elapsed * limit / MINUTE
  return left > EPSILON and left or 0
end

local function read(requests_limit, tokens_limit)
  local stored = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at', 'full')
  local at = tonumber(stored[3])
  if not at then return 0, 0, now end
  local elapsed = math.max(0, now - at) -- the clock may have been set back
  local before = tonumber(stored[2])
  local requests = decayed(tonumber(stored[1]), requests_limit, elapsed)
  local tokens = decayed(before, tokens_limit, elapsed)
  local full = math.min(now, tonumber(stored[4]))
  if tokens == 0 then
    full = tokens_limit == 0 and now or math.min(now, math.floor(at + before * MINUTE / tokens_limit))
  end
  return requests, tokens, full
end

local function write(requests, tokens, full)
  redis.call('HSET', KEYS[1], 'requests', requests, 'tokens', tokens, 'at', now, 'full', full)
  redis.call('PEXPIRE', KEYS[1], KEEP_MS)
end

local function hold(slot, lease_ms)
  redis.call('ZADD', KEYS[2], now + lease_ms * 1000, slot)
  redis.call('PEXPIRE', KEYS[2], lease_ms)
end

local function acquire(requests_limit, tokens_limit, concurrent, estimate, slot, lease_ms)
  local requests, tokens, full = read(requests_limit, tokens_limit)
  local running = 0
  if concurrent > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
    running = redis.call('ZCARD', KEYS[2])
  end
  local admitted = (requests_limit == 0 or requests + 1 <= requests_limit + EPSILON)
    and (tokens_limit == 0 or tokens + estimate <= tokens_limit + EPSILON)
    and (concurrent == 0 or running < concurrent)
  if admitted then
    if requests_limit > 0 then requests = requests + 1 end
    if tokens_limit > 0 then tokens = tokens + estimate end
    if requests_limit > 0 or tokens_limit > 0 then write(requests, tokens, full) end
    if concurrent > 0 then hold(slot, lease_ms) end
  end
  -- as text: a number would lose its fraction on the way out
  local text = string.format('%.17g %.17g %.0f', requests, tokens, now)
  return {admitted and 1 or 0, running, text}
end

local function release(requests_limit, tokens_limit, difference, at, slot)
  if slot ~= '' then redis.call('ZREM', KEYS[2], slot) end
  if tokens_limit == 0 or difference == 0 then return end
  local requests, tokens, full = read(requests_limit, tokens_limit)
  if difference < 0 and full > at then return end
  tokens = math.min(math.max(tokens + difference, 0), DEBT * tokens_limit)
  write(requests, tokens, full)
end

local function number(position)
  return tonumber(ARGV[position])
end

local step = ARGV[1]
if step == 'acquire' then
  return acquire(number(2), number(3), number(4), number(5), ARGV[6], number(7))
elseif step == 'release' then
  release(number(2), number(3), number(4), number(5), ARGV[6])
else
  hold(ARGV[2], number(3))
end
return 1
