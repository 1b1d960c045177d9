// What the rank processes of one engine share: commands from rank 0, collectives, and who is still alive.
//
// All state is in one anonymous shared mapping, made before the ranks are forked: nothing has a name that could be left
// behind. Each command of rank 0 is an epoch. A collective's number is its epoch, then its place in it: numbers only
// grow, so what an aborted epoch left behind can never be taken for something newer.
//
// A word that others wait for is stored with sequential consistency, then the number of sleepers is loaded; a sleeper
// counts itself, then looks at the word again. One of the two sees the other, so no wake-up is lost.

#pragma once

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
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ranks {

constexpr int kMaxRanks = 32;
constexpr int kTextBytes = 2048;
constexpr int64_t kMillisecond = 1000 * 1000;
constexpr int64_t kWatchPeriod = 100 * kMillisecond;  // between two looks at the others while waiting for them
constexpr int64_t kIdlePeriod = 250 * kMillisecond;   // between two beats of a rank that waits for a command
constexpr int64_t kWatchGap = 600 * kMillisecond;     // a longer gap between two looks was the watcher's own sleep
constexpr int64_t kYield = 300 * 1000;                // before sleeping, in a collective
constexpr int64_t kCommandYield = 2 * kMillisecond;   // the next command may be a whole step's scheduling away
constexpr int64_t kCrowdedYield = 20 * 1000;          // where others can use the core better
constexpr int kCallBits = 24;                         // collectives of one epoch: 16 million, a step has dozens

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
  int64_t yield_ns, command_yield_ns;
  int64_t watched_at = 0;
  uint64_t seen[kMaxRanks] = {};
  int64_t silent[kMaxRanks] = {};
};

inline int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 * kMillisecond + t.tv_nsec;
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Not FUTEX_PRIVATE: the word lies in memory that several processes share.
inline bool sleep_on(std::atomic<uint32_t>& word, uint32_t value, int64_t ns) {
  const timespec t{ns / (1000 * kMillisecond), ns % (1000 * kMillisecond)};
  return syscall(SYS_futex, &word, FUTEX_WAIT, value, &t, nullptr, 0) == 0 || errno != EINTR;
}

inline void ring(Bell& bell) {
  if (bell.sleepers.load() == 0) return;
  bell.rings.fetch_add(1);
  syscall(SYS_futex, &bell.rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

inline void beat(Context& c) {
  std::atomic<uint64_t>& beats = c.group->ranks[c.rank].beats;
  beats.store(beats.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (c.outer_beat) c.outer_beat->store(c.outer_beat->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// Whether a process has ended, waited for or not; its wait status where /proc tells it, else -1.
inline bool ended(int64_t pid, int& status) {
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

inline void lose(Context& c, int rank, Loss loss, int status) {
  uint64_t none = 0;
  c.group->lost.compare_exchange_strong(
      none, static_cast<uint64_t>(rank + 1) | loss << 8 | static_cast<uint64_t>(status & 0xffff) << 16);
  ring(c.group->collective_bell);
  ring(c.group->command_bell);
  ring(c.group->done_bell);
}

// Looks at all other ranks. Silence is added up from look to look, so that what the watcher itself slept, or the whole
// machine, is not held against anybody.
inline void watch(Context& c) {
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

inline int alarm(Context& c, bool in_epoch) {
  if (c.group->lost.load(std::memory_order_relaxed)) return kLost;
  if (c.group->closing.load(std::memory_order_relaxed)) return kClosed;
  if (in_epoch && c.group->aborted.load(std::memory_order_relaxed) >= c.epoch && c.epoch) return kAborted;
  return kOk;
}

// Waits until ready(); `look` is called about once in `period` and its outcome, unless kOk, ends the wait.
// Spins for a moment only: where the other rank does not run, it may be waiting for this very core. Then offers that
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

}  // namespace ranks
