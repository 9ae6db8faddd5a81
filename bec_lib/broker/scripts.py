"""The Lua script by which a batch is committed: all of it or nothing, checked before the first write.

MULTI is not enough: a refused XADD inside it leaves the other writes applied. Redis runs a script without
interruption, so that checks made first hold for all writes after them. Written for the 6.2 command set.
"""

# KEYS[1]: the lease (hash epoch, seq), or "" for none.
# ARGV: epoch, seq, then five values an operation: letter, key, a, b, c. Without a lease: "", until, ...; until: the
# server's time in milliseconds after which nothing is written, or "".
#
# A copy of a batch may come long after it was sent, and after its successors: it lies in the sender's kernel while a
# network is cut, also when the sender has closed its connection, and is delivered afterwards. So a number that is not
# higher than the last is of such a copy.
#
#   x  append        a: entry id or *      b: payload   c: about how many entries to keep, or ""
#   e  append, exact a: entry id           b: payload   c: the id which must be the stream's last
#   s  put           a: milliseconds or "" b: payload   c: "1" to publish it under its key as well
#   h  cursor        a: field              b: value
#   p  broadcast     b: payload
#   t  expire        a: milliseconds
#   d  delete
# Returns {"ok", ids of the appended entries}, {"repeated"}, {"fenced", epoch}, {"late"} or {"conflict", key, last id,
# expected id}.
COMMIT = """
local lease = KEYS[1]
if lease ~= '' then
  local held = redis.call('HMGET', lease, 'epoch', 'seq')
  if held[1] ~= ARGV[1] then return {'fenced', held[1] or ''} end
  if (tonumber(held[2] or '') or 0) >= tonumber(ARGV[2]) then return {'repeated'} end
end
if lease == '' and ARGV[2] ~= '' then
  local time = redis.call('TIME')
  if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[2]) then return {'late'} end
end
local n = #ARGV
local i = 3
while i <= n do
  if ARGV[i] == 'e' then
    local last = '0-0'
    if redis.call('EXISTS', ARGV[i+1]) == 1 then
      local info = redis.call('XINFO', 'STREAM', ARGV[i+1])
      for k = 1, #info, 2 do
        if info[k] == 'last-generated-id' then last = info[k+1] end
      end
    elseif redis.call('EXISTS', ARGV[i+1] .. ':sealed') == 1 then
      last = 'sealed'
    end
    local j = 3
    while j < i do
      if ARGV[j] == 'e' and ARGV[j+1] == ARGV[i+1] then last = ARGV[j+2] end
      j = j + 5
    end
    if last ~= ARGV[i+4] then return {'conflict', ARGV[i+1], last, ARGV[i+4]} end
  end
  i = i + 5
end
if lease ~= '' then redis.call('HSET', lease, 'seq', ARGV[2]) end
local ids = {'ok'}
i = 3
while i <= n do
  local op, key, a, b, c = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4]
  if op == 'x' then
    if c ~= '' then
      ids[#ids+1] = redis.call('XADD', key, 'MAXLEN', '~', c, a, 'd', b)
    else
      ids[#ids+1] = redis.call('XADD', key, a, 'd', b)
    end
  elseif op == 'e' then
    ids[#ids+1] = redis.call('XADD', key, a, 'd', b)
  elseif op == 's' then
    if a ~= '' then redis.call('SET', key, b, 'PX', a) else redis.call('SET', key, b) end
    if c == '1' then redis.call('PUBLISH', key, b) end
  elseif op == 'h' then
    redis.call('HSET', key, a, b)
  elseif op == 'p' then
    redis.call('PUBLISH', key, b)
  elseif op == 't' then
    redis.call('PEXPIRE', key, a)
  elseif op == 'd' then
    redis.call('DEL', key)
  end
  i = i + 5
end
return ids
"""

# KEYS[1]: the lease. ARGV: the new holder, the name of this claim, the epoch that it saw. Returns the new epoch, or 0 if
# another claim came in between. Repeated it gives the same epoch, and a copy that comes late dethrones nobody.
CLAIM = """
local held = redis.call('HMGET', KEYS[1], 'epoch', 'claim')
local epoch = held[1] or '0'
if held[2] == ARGV[2] then return tonumber(epoch) end
if epoch ~= ARGV[3] then return 0 end
epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'seq', '', 'claim', ARGV[2])
return epoch
"""
