//! What runs inside the store: comparing stamps must be one step with what follows from it.
//!
//! A script is sent by its hash; a store that does not know it (new, restarted, failed over) is sent the text, once.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// Finds the stamp in the first bytes of what is stored (see [`stored`](super::stored)) and compares two. Each function
/// that a script defines costs it time whenever it is defined: what is not always needed goes first.
macro_rules! with_stamps {
    ($body:literal) => {
        with_stamps!("", $body)
    };
    ($first:literal, $body:literal) => {
        concat!(
            $first,
            r"
local byte, call, pcall = string.byte, redis.call, redis.pcall
local pack, unpack = struct.pack, struct.unpack
local function stamp(v)
  local magic, kind, _, flags = byte(v, 1, 4)
  if magic ~= 199 or (kind ~= 84 and kind ~= 86 and kind ~= 68) or not flags then return nil end
  local at = 7
  if kind == 84 and flags % 16 >= 8 then -- a dictionary's id comes first
    repeat
      local more = byte(v, at)
      if not more then return nil end
      at = at + 1
    until more < 128
  end
  if #v < at + 11 then return nil end
  return unpack('<I4I4I4', v, at)
end
local function head(key)
  -- Numbers as text: what is one in Lua is printed first, at length.
  local found = pcall('GETRANGE', key, '0', '22')
  if type(found) == 'string' then return found end
  return '?' -- another type of value
end
local function believable(hi)
  -- Bytes that were damaged can say any time: one that no clock shows yet must not keep a key from being written.
  local now = redis.call('TIME')
  return hi <= math.floor((now[1] * 1000 + now[2] / 1000) / 65536) + 55
end
local function live(found)
  local magic, kind = byte(found, 1, 2)
  return magic and not (magic == 199 and kind == 68)
end
",
            $body
        )
    };
}

/// Stores each value unless a newer stamp stands there. An empty value removes what has no stamp. A stamp that is more
/// than an hour ahead of the store's clock is not believed.
///
/// Simple keys come first: their values are frames without a dictionary that live at least as long as a guard. Mostly an
/// older one of these stands there, or nothing. Of such a key only the stamp is looked at, and all of them are stored with
/// one command: each call of one costs the script a good part of a microsecond, and so does an expiry given to `SET`.
///
/// KEYS: names. ARGV: the guards' prefix, their life in ms, how many keys are simple, the least milliseconds of their
/// stamps, then per key the value and its life in ms or nothing. Answers nothing if all were simple, and applied.
/// Otherwise per key: 1 or 0 (whether something was there), the newer stamp, or an error.
const STORE: &str = with_stamps!(
    r"
local keys, arguments, call, pcall = KEYS, ARGV, redis.call, redis.pcall
local unpack, list = struct.unpack, unpack
local guards, simple, least = arguments[1], tonumber(arguments[3]), tonumber(arguments[4])
local places, puts, n, closely = {}, {}, 0, {}
for i = 1, simple do
  local key = keys[i]
  -- Numbers as text: what is one in Lua is printed first, at length.
  local found = pcall('GETRANGE', key, '0', '22')
  local older = false
  if found == '' then
    older = not pcall('GET', guards .. '{' .. key .. '}')
  elseif #found == 23 then
    local id, flags, _, ms = unpack('<I3BI4I6', found)
    older = id == 87239 and flags % 16 < 8 and ms < least
  end
  if older then
    n = n + 1
    puts[2 * n - 1], puts[2 * n] = key, arguments[2 * i + 3]
    if n < i then places[n] = i end
  else
    closely[#closely + 1] = i
  end
end
if n == 1 and arguments[2 * (places[1] or 1) + 4] ~= '' then
  local i = places[1] or 1
  local done = pcall('SET', puts[1], puts[2], 'PX', arguments[2 * i + 4])
  if done.err then closely[#closely + 1] = i end
elseif n > 0 then
  local now = call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  for first = 1, n, 2000 do -- a call takes some thousands of arguments
    local last = math.min(n, first + 1999)
    local done, life, at = pcall('MSET', list(puts, 2 * first - 1, 2 * last))
    for j = first, last do
      local i = places[j] or j
      if done.err then
        closely[#closely + 1] = i -- each is answered for itself
      else
        if life ~= arguments[2 * i + 4] then
          life = arguments[2 * i + 4]
          at = life ~= '' and string.format('%.0f', now + life)
        end
        if at then call('PEXPIREAT', keys[i], at) end
      end
    end
  end
end
if #closely == 0 and #keys == simple then return {} end
",
    r"
local guard_life, answers = tonumber(ARGV[2]), {}
local function change(i, key, value, life, found)
  local lo, hi, node = stamp(found)
  if found == '' then
    local guard = pcall('GET', guards .. '{' .. key .. '}')
    if type(guard) == 'string' then lo, hi, node = stamp(guard) end
  end
  local newer = false
  if lo and value == '' then
    newer = true
  elseif lo then
    local l, h, n = stamp(value)
    newer = hi > h or (hi == h and (lo > l or (lo == l and node > n)))
  end
  if newer and believable(hi) then
    answers[i] = pack('<I4I4I4', lo, hi, node)
  else
    local done = true
    if value == '' then
      if found ~= '' then done = pcall('UNLINK', key) end
    elseif life == '' then
      done = pcall('SET', key, value)
    else
      done = pcall('SET', key, value, 'PX', life)
      if live(value) and tonumber(life) < guard_life then
        -- It is gone before an older write that was given up can be ruled out.
        local l, h, n = stamp(value)
        local guard = '\199D\1\0\0\0' .. pack('<I4I4I4', l, h, n)
        pcall('SET', guards .. '{' .. key .. '}', guard, 'PX', ARGV[2])
      end
    end
    if type(done) == 'table' and done.err then
      -- No room even for a tombstone: removing needs none.
      if not live(value) then
        done = pcall('UNLINK', key)
      end
    end
    if type(done) == 'table' and done.err then
      answers[i] = done
    else
      answers[i] = live(found) and 1 or 0
    end
  end
end
for i = 1, simple do answers[i] = 1 end
for _, i in ipairs(closely) do
  change(i, keys[i], arguments[2 * i + 3], arguments[2 * i + 4], head(keys[i]))
end
for i = simple + 1, #keys do
  change(i, keys[i], arguments[2 * i + 3], arguments[2 * i + 4], head(keys[i]))
end
return answers
"
);

/// Deletes what is stamped at or before a clear, or not at all; tombstones end by themselves.
///
/// KEYS: names. ARGV: the clear's time, its lower and its upper half. Answers how many went.
const SWEEP: &str = with_stamps!(
    r"
local gone, lower, upper = 0, tonumber(ARGV[1]), tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  local found = head(key)
  local lo, hi = stamp(found)
  if live(found) and (not lo or hi < upper or (hi == upper and lo <= lower)) then
    gone = gone + call('UNLINK', key)
  end
end
return gone
"
);

/// Records a clear. With too many regions on record, all become one mark over everything.
///
/// KEYS: the marks, their version. ARGV: the region or nothing, the stamp's time in 16 hex digits, the new version,
/// how many regions at most. Answers the time that counts: one that is more than an hour ahead of the store's clock is
/// not believed, and becomes the store's; what is on record and not believed, or damaged, is overwritten.
const CLEAR: &str = r"
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local function halves(mark)
  local hi, lo = tonumber(string.sub(mark, 1, 8), 16), tonumber(string.sub(mark, 9), 16)
  if #mark == 16 and hi and lo and hi <= math.floor(ms / 65536) + 55 then return hi, lo end
end
local function later(a, b)
  local ahi, alo = halves(a)
  local bhi, blo = halves(b)
  if not ahi then return false end
  return not bhi or ahi > bhi or (ahi == bhi and alo > blo)
end
local region, time = ARGV[1], ARGV[2]
if not halves(time) then
  time = string.format('%08x%08x', math.floor(ms / 65536), (ms % 65536) * 65536)
end
local counts = time
if region ~= '' and redis.call('HEXISTS', KEYS[1], region) == 0
    and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  for _, mark in ipairs(redis.call('HVALS', KEYS[1])) do
    if later(mark, time) then time = mark end
  end
  redis.call('DEL', KEYS[1])
  region = ''
end
local mark = redis.call('HGET', KEYS[1], region)
if not mark or later(time, mark) then redis.call('HSET', KEYS[1], region, time) end
redis.call('SET', KEYS[2], ARGV[3])
return counts
";

pub(super) static STORE_IF_NEWER: LazyLock<Lua> = LazyLock::new(|| Lua::new(STORE));
pub(super) static SWEEP_UP_TO: LazyLock<Lua> = LazyLock::new(|| Lua::new(SWEEP));
pub(super) static RECORD_CLEAR: LazyLock<Lua> = LazyLock::new(|| Lua::new(CLEAR));

pub(super) struct Lua {
    text: &'static str,
    hash: String,
}

impl Lua {
    fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// A call of it by its hash.
    pub(super) fn call<'a, K, A>(&self, keys: K, arguments: A) -> Cmd
    where
        K: ExactSizeIterator<Item = &'a [u8]> + Clone,
        A: Iterator<Item = &'a [u8]> + Clone,
    {
        // Made in one piece: a batch has more than a thousand arguments.
        let of_arguments = |sum: (usize, usize), argument: &[u8]| (sum.0 + 1, sum.1 + argument.len());
        let (args, bytes) = keys.clone().chain(arguments.clone()).fold((0, 64), of_arguments);
        let mut command = Cmd::with_capacity(3 + args, bytes);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for argument in arguments {
            command.arg(argument);
        }
        command
    }

    /// The same call with the text in the hash's place.
    pub(super) fn in_full(&self, call: &Cmd) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.text);
        for argument in call.args_iter().skip(2) {
            match argument {
                redis::Arg::Simple(bytes) => command.arg(bytes),
                _ => &mut command,
            };
        }
        command
    }
}
