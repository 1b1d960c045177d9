// Sums and gathers over the ranks of one engine, piece by piece through the memory that they share.

#include "ranks.h"

using namespace ranks;

namespace {

constexpr size_t kTwoStepBytes = 64 * 1024;  // from here each of more than two ranks adds only its share

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
    const auto look = [&]() -> int {
      for (int r = 0; r < c.size && c.epoch; ++r) {
        const bool done = g.ranks[r].done.load() >= c.epoch;  // read first: whoever is done has posted before
        if (done && g.ranks[r].posted.load() < number) {
          c.disagrees = r;  // it has finished the command without this call
          return kDisagreed;
        }
      }
      watch(c);
      return alarm(c, true);
    };
    const int outcome = wait_for(c, g.collective_bell, c.yield_ns, kWatchPeriod, true, all_here, look);
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
