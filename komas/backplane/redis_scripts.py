"""What Redis does as one step, in its Lua; times are milliseconds of its own clock.

An entry of the log has the fields ``v`` (its version) and ``h``, ``d``, ``s`` (header, data, whether it is whole), or
``n`` and ``p`` (node and previous entry) where it is the first of its term.

Entries' ids are no times, so that a list says which were there when: a mark is ``time|id|bytes``, pushed by the append
that its writer says is worth one, with the bytes since the mark before. It is in the store because the next leader must
know it; and a mark each second costs nothing beside the appends.
"""

from __future__ import annotations

import hashlib
from typing import Final


class Script:
    """A script, and its name in the store that knows it."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


_NOW: Final = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# KEYS: log, last, lease, marks. ARGV: node, lease in ms, version, the newest term that the node has seen.
# A log whose ``last`` was lost (evicted) still knows the newest id that it ever had: XADD would refuse an older one.
ACQUIRE: Final = Script(
    _NOW
    + """
local held = redis.call('GET', KEYS[3])
if held then
  local node = string.match(held, '^%d+:(.*)$')
  if node ~= ARGV[1] then return {0, node, redis.call('PTTL', KEYS[3])} end
end
local now = now_ms()
local last = redis.call('GET', KEYS[2]) or ''
local newest = math.max(tonumber(string.match(last, '^%d+') or 0), tonumber(ARGV[4]))
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for place = 1, #info, 2 do
    if info[place] == 'last-generated-id' then
      newest = math.max(newest, tonumber(string.match(info[place + 1], '^%d+')))
    end
  end
end
local term = string.format('%.0f', math.max(now, newest + 1))
redis.call('XADD', KEYS[1], term .. '-0', 'v', ARGV[3], 'n', ARGV[1], 'p', last)
redis.call('SET', KEYS[2], term .. '-0')
redis.call('SET', KEYS[3], term .. ':' .. ARGV[1], 'PX', ARGV[2])
redis.call('RPUSH', KEYS[4], string.format('%.0f|%s-0|0', now, term))
return {1, term, last}
"""
)

# KEYS: lease. ARGV: term:node, lease in ms.
RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# KEYS: lease. ARGV: term:node.
RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# KEYS: log, last, marks. ARGV: previous, id, version, header, data, whole ('1' or '0'), anew ('1' or '0'),
# and where a mark is due: bytes since the one before, ms and bytes that are kept. Returns nil, or the newest id.
APPEND: Final = Script(
    _NOW
    + """
local last = redis.call('GET', KEYS[2]) or ''
if last ~= ARGV[1] then return last end
if ARGV[7] == '1' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
  redis.call('DEL', KEYS[3])
end
redis.call('XADD', KEYS[1], ARGV[2], 'v', ARGV[3], 'h', ARGV[4], 'd', ARGV[5], 's', ARGV[6])
redis.call('SET', KEYS[2], ARGV[2])
if not ARGV[8] then return false end
local now = now_ms()
redis.call('RPUSH', KEYS[3], string.format('%.0f|%s|%s', now, ARGV[2], ARGV[8]))
local marks = redis.call('LRANGE', KEYS[3], 0, -1)
local size, old = 0, 0
for place = #marks, 1, -1 do
  local at, bytes = string.match(marks[place], '^(%d+)|.*|(%d+)$')
  size = size + tonumber(bytes)
  if place < #marks and (size > tonumber(ARGV[10]) or tonumber(at) <= now - ARGV[9]) then
    old = place
    break
  end
end
if old > 0 then
  local term, sequence = string.match(marks[old], '|(%d+)-(%d+)|')
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%s-%.0f', term, sequence + 1))
  redis.call('LTRIM', KEYS[3], old, -1)
end
return false
"""
)

# KEYS: facts. ARGV: node, value, ms. A hash for each name; values carry when they expire.
KEEP: Final = Script(
    _NOW
    + """
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:', now_ms() + ARGV[3]) .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)

# KEYS: facts. Returns node, value, node, value, ...
KEPT: Final = Script(
    _NOW
    + """
local facts, now, kept = redis.call('HGETALL', KEYS[1]), now_ms(), {}
for place = 1, #facts, 2 do
  local until_ms, value = string.match(facts[place + 1], '^(%d+):(.*)$')
  if tonumber(until_ms) > now then
    kept[#kept + 1] = facts[place]
    kept[#kept + 1] = value
  else
    redis.call('HDEL', KEYS[1], facts[place])
  end
end
return kept
"""
)

# KEYS: wishes. ARGV: value, ms that they are kept.
WISH: Final = Script(
    _NOW
    + """
return redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%.0f', now_ms() - ARGV[2]), '*', 'w', ARGV[1])
"""
)

# KEYS: wishes. Returns the newest place that there ever was; '' for none.
NEWEST_WISH: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for place = 1, #info, 2 do
  if info[place] == 'last-generated-id' then return info[place + 1] end
end
return ''
""")

# KEYS: answer. ARGV: value, ms.
ANSWER: Final = Script("""
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
