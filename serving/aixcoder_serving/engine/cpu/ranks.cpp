// The ranks of one engine: joining, commands from rank 0, failures and losses. How it works: ranks.h.

#include "ranks.h"

#include <new>

using namespace ranks;

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

// This process becomes a rank, until it ends. `outer_beat` may be null. `crowded`: more threads than cores.
void* aix_join(void* base, int rank, void* outer_beat, int crowded) {
  Context* c = new Context();
  c->group = static_cast<Group*>(base);
  c->rank = rank;
  c->size = c->group->size;
  c->outer_beat = static_cast<std::atomic<uint64_t>*>(outer_beat);
  c->yield_ns = crowded ? kCrowdedYield : kYield;
  c->command_yield_ns = crowded ? kCrowdedYield : kCommandYield;
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
  const auto ready = [&] { return g.command.load() > c.epoch; };
  const int outcome = wait_for(c, g.command_bell, c.command_yield_ns, kIdlePeriod, false, ready, [] { return 0; });
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
  const int outcome = wait_for(c, g.done_bell, c.yield_ns, kWatchPeriod, false, ready, [&] {
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

}  // extern "C"
#pragma GCC visibility pop
