// What the rank processes of one engine share: commands from rank 0, collectives, and who is still alive.
//
// All state is in one anonymous shared mapping, made before the ranks are forked: nothing has a name that could be left
// behind. Each command of rank 0 is an epoch. A collective's place is counted inside its epoch, and its number holds the
// epoch: numbers only grow, so what an aborted epoch left behind can never be taken for something newer.
//
// A word that others wait for is stored with sequential consistency, then the number of sleepers is loaded; a sleeper
// counts itself, then looks at the word again. One of the two sees the other, so no wake-up is lost.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <new>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int kMaxRanks = 32;
constexpr int kTextBytes = 2048;
constexpr int64_t kMillisecond = 1000 * 1000;
constexpr int64_t kWatchPeriod = 100 * kMillisecond;  // between two looks at the others while waiting for them
constexpr int64_t kIdlePeriod = 250 * kMillisecond;   // between two beats of a rank that waits for a command
constexpr int64_t kWatchGap = 600 * kMillisecond;     // a longer gap between two looks was the watcher's own sleep
constexpr int64_t kYield = 300 * 1000;                // before sleeping, in a collective
constexpr int64_t kCommandYield = 2 * kMillisecond;   // the next command may be a whole step's scheduling away
constexpr int64_t kCrowdedYield = 20 * 1000;
constexpr int kCallBits = 20;                         // collectives of one epoch: under a million
constexpr size_t kTwoStepBytes = 64 * 1024;           // from here each of more than two ranks adds only its share

enum Outcome : int { kOk = 0, kAborted = -1, kLost = -2, kDisagreed = -3, kClosed = -4, kInterrupted = -5 };
enum Loss : uint64_t { kEnded = 1, kFrozen = 2 };

struct alignas(64) Bell {
  std::atomic<uint32_t> rings;
  std::atomic<uint32_t> sleepers;
};

struct RankState {
  alignas(64) std::atomic<uint64_t> posted;  // number of the last collective entered
  std::atomic<uint64_t> signature[2];        // what it was, by the number's parity: nobody is two ahead
  alignas(64) std::atomic<uint64_t> done;    // the last epoch finished, by success or not
  std::atomic<uint64_t> beats;               // 0: not serving yet
  std::atomic<int64_t> pid;
  alignas(64) char text[kTextBytes];
};

struct Group {
  int32_t size;
  int64_t freeze_ns;
  size_t piece;         // bytes of one rank that are exchanged at a time
  size_t exchange;      // offsets from the start of the mapping
  size_t command_area;
  alignas(64) std::atomic<uint64_t> aborted;  // the last epoch that a rank aborted
  std::atomic<uint64_t> aborted_by;
  std::atomic<uint64_t> lost;  // 0, or (rank + 1) | Loss << 8 | wait status << 16: the first loss that was noticed
  std::atomic<uint32_t> closing;
  alignas(64) std::atomic<uint64_t> command;  // epoch of the last command
  std::atomic<int64_t> command_bytes;
  std::atomic<uint32_t> patient;  // no freeze check until all have done this epoch
  Bell collective_bell, command_bell, done_bell;
  RankState ranks[kMaxRanks];
};

static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

struct Context {  // one rank's own view; not shared
  Group* group;
  int rank, size;
  uint64_t epoch = 0, calls = 0, pieces = 0;
  std::atomic<uint64_t>* outer_beat;  // rank 0: the counter that the replica's process reads
  int disagrees = 0;                  // the rank that made another call
  bool crowded;                       // who spins may keep the one it waits for from running
  int64_t watched_at = 0;
  uint64_t seen[kMaxRanks] = {};
  int64_t silent[kMaxRanks] = {};
};

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 * kMillisecond + t.tv_nsec;
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Not FUTEX_PRIVATE: the word lies in memory that several processes share.
bool sleep_on(std::atomic<uint32_t>& word, uint32_t value, int64_t ns) {
  const timespec t{ns / (1000 * kMillisecond), ns % (1000 * kMillisecond)};
  return syscall(SYS_futex, &word, FUTEX_WAIT, value, &t, nullptr, 0) == 0 || errno != EINTR;
}

void ring(Bell& bell) {
  if (bell.sleepers.load() == 0) return;
  bell.rings.fetch_add(1);
  syscall(SYS_futex, &bell.rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void beat(Context& c) {
  std::atomic<uint64_t>& beats = c.group->ranks[c.rank].beats;
  beats.store(beats.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (c.outer_beat) c.outer_beat->store(c.outer_beat->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// Whether a process has ended, waited for or not; its wait status where /proc tells it, else -1.
bool ended(int64_t pid, int& status) {
  char name[40], line[1024];
  snprintf(name, sizeof name, "/proc/%lld/stat", static_cast<long long>(pid));
  status = -1;
  const int file = open(name, O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT;
  const ssize_t n = read(file, line, sizeof line - 1);
  const int error = errno;
  close(file);
  if (n <= 0) return n < 0 && error == ESRCH;
  line[n] = 0;
  const char* state = strrchr(line, ')');  // the name before may hold anything
  if (!state || !state[1] || (state[2] != 'Z' && state[2] != 'X')) return false;
  if (const char* last = strrchr(line, ' ')) status = atoi(last + 1);
  return true;
}

void lose(Context& c, int rank, Loss loss, int status) {
  uint64_t none = 0;
  c.group->lost.compare_exchange_strong(
      none, static_cast<uint64_t>(rank + 1) | loss << 8 | static_cast<uint64_t>(status & 0xffff) << 16);
  ring(c.group->collective_bell);
  ring(c.group->command_bell);
  ring(c.group->done_bell);
}

// Looks at all other ranks. Silence is added up from look to look, so that what the watcher itself slept, or the whole
// machine, is not held against anybody.
void watch(Context& c) {
  const int64_t now = now_ns(), elapsed = std::min(now - c.watched_at, kWatchGap);
  c.watched_at = now;
  for (int r = 0; r < c.size; ++r) {
    RankState& other = c.group->ranks[r];
    const int64_t pid = other.pid.load();
    int status;
    if (r == c.rank || pid == 0) continue;
    if (ended(pid, status)) lose(c, r, kEnded, status);
    const uint64_t beats = other.beats.load(std::memory_order_relaxed);
    if (beats != c.seen[r] || beats == 0 || c.group->patient.load()) {
      c.seen[r] = beats;
      c.silent[r] = 0;
    } else if ((c.silent[r] += elapsed) > c.group->freeze_ns) {
      lose(c, r, kFrozen, 0);
    }
  }
}

int alarm(Context& c, bool in_epoch) {
  if (c.group->lost.load(std::memory_order_relaxed)) return kLost;
  if (c.group->closing.load(std::memory_order_relaxed)) return kClosed;
  if (in_epoch && c.group->aborted.load(std::memory_order_relaxed) >= c.epoch && c.epoch) return kAborted;
  return kOk;
}

// Waits until ready(); `look` is called about once in `period` and its outcome, unless kOk, ends the wait.
// Spins for a moment only: where the other rank does not run, it may be waiting for this very core. Then offers the core
// for `yield_ns`, which costs next to no latency where nobody wants it, then sleeps.
template <class Ready, class Look>
int wait_for(Context& c, Bell& bell, int64_t yield_ns, int64_t period, bool in_epoch, Ready ready, Look look) {
  for (int i = 0; i < 32; ++i) {
    if (ready()) return kOk;
    relax();
  }
  const int64_t start = now_ns();
  int64_t looked = start;
  c.watched_at = start;
  for (;;) {
    if (ready()) return kOk;
    if (const int stop = alarm(c, in_epoch)) return stop;
    const int64_t now = now_ns();
    if (now - looked >= period) {
      looked = now;
      beat(c);
      if (const int stop = look()) return stop;
    }
    if (now - start < yield_ns) {
      sched_yield();
      continue;
    }
    const uint32_t rings = bell.rings.load();
    bell.sleepers.fetch_add(1);
    const bool sleep = !ready() && !alarm(c, in_epoch);
    const bool slept = !sleep || sleep_on(bell.rings, rings, period);
    bell.sleepers.fetch_sub(1);
    if (!slept && !in_epoch) return kInterrupted;
  }
}

// Enters the next collective and waits for all ranks to be there.
int meet(Context& c, uint64_t signature) {
  Group& g = *c.group;
  if (const int stop = alarm(c, true)) return stop;
  const uint64_t number = c.epoch << kCallBits | ++c.calls;
  RankState& mine = g.ranks[c.rank];
  beat(c);
  mine.signature[number & 1].store(signature, std::memory_order_relaxed);
  mine.posted.store(number);
  const auto all_here = [&] {
    for (int r = 0; r < c.size; ++r)
      if (g.ranks[r].posted.load() < number) return false;
    return true;
  };
  if (all_here()) {
    ring(g.collective_bell);
  } else {
    const int outcome = wait_for(c, g.collective_bell, c.crowded ? kCrowdedYield : kYield, kWatchPeriod, true, all_here, [&]() -> int {
      for (int r = 0; r < c.size; ++r) {
        if (g.ranks[r].posted.load() < number && g.ranks[r].done.load() >= c.epoch && c.epoch) {
          c.disagrees = r;  // it has finished the command without this call
          return kDisagreed;
        }
      }
      watch(c);
      return alarm(c, true);
    });
    if (outcome != kOk) return outcome;
  }
  for (int r = 0; r < c.size; ++r) {
    if (g.ranks[r].signature[number & 1].load(std::memory_order_relaxed) != signature) {
      c.disagrees = r;
      return kDisagreed;
    }
  }
  return kOk;
}

char* slot(Context& c, int rank) {  // where a rank puts the current piece
  Group& g = *c.group;
  return reinterpret_cast<char*>(&g) + g.exchange + ((c.pieces & 1) * (c.size + 1) + rank) * g.piece;
}

struct Float32 {
  using Stored = float;
  static float load(float x) { return x; }
  static float store(float x) { return x; }
};

struct BFloat16 {
  using Stored = uint16_t;
  static float load(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  static uint16_t store(float x) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
  }
};

// out = source 0 + source 1 + ..., always in this order; out may be one of the sources.
template <class Type>
void add_up(char* out, const char* const* sources, int size, size_t bytes) {
  using Stored = typename Type::Stored;
  constexpr size_t kBlock = 512;
  const size_t count = bytes / sizeof(Stored);
  float sum[kBlock];
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t n = std::min(kBlock, count - start);
    const Stored* first = reinterpret_cast<const Stored*>(sources[0]) + start;
    for (size_t i = 0; i < n; ++i) sum[i] = Type::load(first[i]);
    for (int r = 1; r < size; ++r) {
      const Stored* next = reinterpret_cast<const Stored*>(sources[r]) + start;
      for (size_t i = 0; i < n; ++i) sum[i] += Type::load(next[i]);
    }
    Stored* to = reinterpret_cast<Stored*>(out) + start;
    for (size_t i = 0; i < n; ++i) to[i] = Type::store(sum[i]);
  }
}

// A piece's slots are written again two pieces later. Who writes them then has met all others in the piece between, and
// they came there after reading these.
template <class Type>
int reduce_piece(Context& c, char* x, size_t bytes, uint64_t signature) {
  const bool two_step = c.size > 2 && bytes >= kTwoStepBytes;
  const size_t share = two_step ? (bytes / c.size + 63) / 64 * 64 : bytes;
  const size_t begin = two_step ? std::min(bytes, share * c.rank) : 0, length = std::min(share, bytes - begin);
  char* result = slot(c, c.size);
  const char* sources[kMaxRanks];
  memcpy(slot(c, c.rank), x, bytes);
  if (const int stop = meet(c, signature)) return stop;
  for (int r = 0; r < c.size; ++r) sources[r] = (r == c.rank ? x : slot(c, r)) + begin;
  add_up<Type>((two_step ? result : x) + begin, sources, c.size, length);
  if (!two_step) return kOk;
  if (const int stop = meet(c, signature)) return stop;
  memcpy(x, result, bytes);
  return kOk;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Bytes to map for a group.
size_t aix_group_bytes(int size, size_t piece, size_t command) {
  return (sizeof(Group) + 4095) / 4096 * 4096 + 2 * (size + 1) * piece + command;
}

// `base`: zeroed and aligned to a page; `piece` a multiple of 64.
void aix_group_create(void* base, int size, size_t piece, double freeze_seconds) {
  Group* group = new (base) Group();
  group->size = size;
  group->piece = piece;
  group->freeze_ns = static_cast<int64_t>(freeze_seconds * 1e9);
  group->exchange = (sizeof(Group) + 4095) / 4096 * 4096;
  group->command_area = group->exchange + 2 * (size + 1) * piece;
}

int aix_max_ranks() { return kMaxRanks; }

// This process becomes a rank, until it ends. `outer_beat` may be null.
void* aix_join(void* base, int rank, void* outer_beat, int crowded) {
  Context* c = new Context();
  c->group = static_cast<Group*>(base);
  c->rank = rank;
  c->size = c->group->size;
  c->outer_beat = static_cast<std::atomic<uint64_t>*>(outer_beat);
  c->crowded = crowded;
  c->group->ranks[rank].pid.store(getpid());
  return c;
}

// Rank 0: which process a rank is, for one that ends before it joins.
void aix_started(void* context, int rank, int64_t pid) {
  static_cast<Context*>(context)->group->ranks[rank].pid.store(pid);
}

void aix_beat(void* context) { beat(*static_cast<Context*>(context)); }

// Rank 0 while idle: kOk or kLost.
int aix_watch(void* context) {
  Context& c = *static_cast<Context*>(context);
  beat(c);
  if (!alarm(c, false)) watch(c);
  return alarm(c, false);
}

// Who was lost and how: Group::lost.
uint64_t aix_lost(void* context) { return static_cast<Context*>(context)->group->lost.load(); }

int aix_disagrees(void* context) { return static_cast<Context*>(context)->disagrees; }

void* aix_command_area(void* base) { return static_cast<char*>(base) + static_cast<Group*>(base)->command_area; }

// Rank 0: the command area holds a new command. Its last one must be finished on all ranks.
void aix_command(void* context, int64_t bytes, int patient) {
  Context& c = *static_cast<Context*>(context);
  Group& g = *c.group;
  beat(c);
  g.patient.store(patient);
  g.command_bytes.store(bytes);
  c.calls = c.pieces = 0;
  g.command.store(++c.epoch);
  ring(g.command_bell);
}

// The others: the next command's bytes, or kLost, kClosed, kInterrupted (call again).
int64_t aix_next_command(void* context) {
  Context& c = *static_cast<Context*>(context);
  Group& g = *c.group;
  beat(c);
  const int64_t yield = c.crowded ? kCrowdedYield : kCommandYield;
  const auto ready = [&] { return g.command.load() > c.epoch; };
  const int outcome = wait_for(c, g.command_bell, yield, kIdlePeriod, false, ready, [] { return 0; });
  if (outcome != kOk) return outcome;
  c.epoch = g.command.load();
  c.calls = c.pieces = 0;
  return g.command_bytes.load();
}

// Ends the command on this rank, without waiting for others.
void aix_done(void* context) {
  Context& c = *static_cast<Context*>(context);
  Group& g = *c.group;
  beat(c);
  g.ranks[c.rank].done.store(c.epoch);
  for (int r = 1; r < c.size; ++r)
    if (g.ranks[r].done.load() < c.epoch) return;
  ring(g.done_bell);
}

// Rank 0, after aix_done: until all ranks have finished. kOk, kLost, kClosed or kInterrupted (call again).
int aix_all_done(void* context) {
  Context& c = *static_cast<Context*>(context);
  Group& g = *c.group;
  const auto ready = [&] {
    for (int r = 0; r < c.size; ++r)
      if (g.ranks[r].done.load() < c.epoch) return false;
    return true;
  };
  const int64_t yield = c.crowded ? kCrowdedYield : kYield;
  const int outcome = wait_for(c, g.done_bell, yield, kWatchPeriod, false, ready, [&] {
    watch(c);
    return alarm(c, false);
  });
  if (outcome == kOk) g.patient.store(0);  // whoever waits for the next command beats
  return outcome;
}

// Ends the collectives of this epoch on all ranks. 1 for the first rank that does: its text is the one that is read.
int aix_abort(void* context, const char* text) {
  Context& c = *static_cast<Context*>(context);
  Group& g = *c.group;
  uint64_t before = g.aborted.load();
  while (before < c.epoch && !g.aborted.compare_exchange_weak(before, c.epoch)) {
  }
  if (before >= c.epoch) return 0;
  char* to = g.ranks[c.rank].text;
  strncpy(to, text, kTextBytes - 1);
  to[kTextBytes - 1] = 0;
  g.aborted_by.store(c.rank);
  ring(g.collective_bell);
  return 1;
}

// Rank 0, once all are done: the rank that aborted this epoch, or -1; `text` then points to what it said.
int aix_aborted(void* context, const char** text) {
  Context& c = *static_cast<Context*>(context);
  if (c.group->aborted.load() < c.epoch || !c.epoch) return -1;
  const int rank = static_cast<int>(c.group->aborted_by.load());
  *text = c.group->ranks[rank].text;
  return rank;
}

// All waits end with kClosed.
void aix_close(void* context) {
  Group& g = *static_cast<Context*>(context)->group;
  g.closing.store(1);
  ring(g.collective_bell);
  ring(g.command_bell);
}

// x, of `bytes`, becomes the sum over all ranks. `type`: 0 float32, 1 bfloat16 (added in float32).
int aix_all_reduce(void* context, void* x, size_t bytes, int type) {
  Context& c = *static_cast<Context*>(context);
  const uint64_t signature = static_cast<uint64_t>(type + 1) << 56 | bytes;
  for (size_t at = 0; at < bytes; at += c.group->piece, ++c.pieces) {
    const size_t n = std::min(c.group->piece, bytes - at);
    char* piece = static_cast<char*>(x) + at;
    const int outcome =
        type ? reduce_piece<BFloat16>(c, piece, n, signature) : reduce_piece<Float32>(c, piece, n, signature);
    if (outcome != kOk) return outcome;
  }
  return kOk;
}

// `out`: size * bytes, every rank's x in the order of ranks.
int aix_all_gather(void* context, const void* x, void* out, size_t bytes) {
  Context& c = *static_cast<Context*>(context);
  const uint64_t signature = 3ull << 56 | bytes;
  for (size_t at = 0; at < bytes; at += c.group->piece, ++c.pieces) {
    const size_t n = std::min(c.group->piece, bytes - at);
    memcpy(slot(c, c.rank), static_cast<const char*>(x) + at, n);
    if (const int stop = meet(c, signature)) return stop;
    for (int r = 0; r < c.size; ++r) memcpy(static_cast<char*>(out) + r * bytes + at, slot(c, r), n);
  }
  return kOk;
}

}  // extern "C"
#pragma GCC visibility pop
