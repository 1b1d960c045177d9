// One chunk of keys and values for a few rows: scores, softmax and weighted values, in registers where it matters.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "cache.h"

namespace {

// Keys that are taken at once.
constexpr long kChunk = 64;
// Vectors of keys, or of a head's values, that are multiplied at once.
constexpr int kWide = 4;
constexpr float kNone = -INFINITY;

template <class P>
constexpr int group_rows() {
  return kLanes == 8 ? 2 : P::kRows == 12 ? 4 : 6;
}

// The softmax of one row over the keys so far: maximum, sum of exp(score - maximum), and values weighted likewise.
struct State {
  float maximum, sum;
  float values[kMaxHeadDim];

  void clear(long width) {
    maximum = kNone;
    sum = 0;
    std::fill(values, values + width, 0.0f);
  }
  void merge(const State& span, long width) {
    const float both = std::max(maximum, span.maximum);
    if (both == kNone) return;
    float lanes[kLanes] = {maximum - both, span.maximum - both};
    store(lanes, exp(load(lanes)));
    sum = sum * lanes[0] + span.sum * lanes[1];
    for (long i = 0; i < width; i += kLanes)
      store(values + i, fma(load(span.values + i), splat(lanes[1]), load(values + i) * splat(lanes[0])));
    maximum = both;
  }
};

// scores (M, kChunk) of M packed queries (units, M) with kWide vectors of keys. Meanwhile their values are fetched,
// which lie `to_values` elements behind the keys.
template <class P, int M>
INLINE void multiply_keys(const typename P::Input* queries, const typename P::Element* const* keys, long units,
                          long block_size, long to_values, float* scores) {
  Vec sum[M][kWide];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; v++) sum[m][v] = splat(0);
  for (long unit = 0; unit < units; unit++) {
#pragma GCC unroll 4
    for (int v = 0; v < kWide; v++) {
      const auto* key = keys[v] + unit * block_size * P::kPerUnit;
      const auto weight = P::weight(key);
      __builtin_prefetch(key + to_values, 0, 2);
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) sum[m][v] = P::multiply(sum[m][v], weight, queries[unit * M + m]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; v++) store(scores + m * kChunk + v * kLanes, sum[m][v]);
}

// values (M rows of State) = values * decay + weights (M, kChunk) · V, for V vectors of a head from element `first`.
// Meanwhile what lies at the same place of the blocks `next` is fetched: the keys of the next chunk.
template <class P, int M, int V>
INLINE void add_values(const float* weights, const typename P::Element* const* blocks,
                       const typename P::Element* const* next, long count, long block_size, long width,
                       const float* decay, State* const* states, long first) {
  Vec sum[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) sum[m][v] = splat(0);
  for (long start = 0; start < count; start += block_size, blocks++, next++) {
    const auto* row = *blocks + first;
    const long ahead = *next - *blocks;
    const long end = std::min(start + block_size, count);
    for (long key = start; key < end; key++, row += width) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        const Vec value = load(row + v * kLanes);
        __builtin_prefetch(row + v * kLanes + ahead, 0, 2);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) sum[m][v] = fma(value, splat(weights[m * kChunk + key]), sum[m][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      float* total = states[m]->values + first + v * kLanes;
      store(total, fma(load(total), splat(decay[m]), sum[m][v]));
    }
}

// One chunk of keys for M rows. `last[m]` is the last key, counted from the chunk's first, that row m may see.
template <class P, int M>
void attend_chunk(const Cache<P>& cache, const typename P::Input* queries, const int32_t* blocks, long kv_head,
                  long count, bool more, const long* last, float scale, State* const* states) {
  using E = typename P::Element;
  const long width = cache.value_width();
  const E* keys[kChunk / kLanes];
  const E* values[kChunk / 16];
  const E* next[kChunk / 16];
  for (long key = 0; key < kChunk; key += kLanes) {
    // Behind the last key any address will do: those scores are masked.
    const long block = blocks[key < count ? key / cache.block_size : 0];
    keys[key / kLanes] = cache.keys(block, kv_head) + key % cache.block_size * P::kPerUnit;
    if (key % cache.block_size == 0) {
      values[key / cache.block_size] = cache.values(block, kv_head);
      next[key / cache.block_size] = cache.keys(more ? blocks[(kChunk + key) / cache.block_size] : block, kv_head);
    }
  }

  alignas(kCacheLine) float scores[M * kChunk];
  for (int v = 0; v < kChunk / kLanes; v += kWide)
    multiply_keys<P, M>(queries, keys + v, cache.key_units(), cache.block_size, cache.block_size * cache.head_dim,
                        scores + v * kLanes);

  float decay[M];
  for (int m = 0; m < M; m++) {
    float* row = scores + m * kChunk;
    Vec highest = splat(kNone);
    for (long key = 0; key < kChunk; key += kLanes) {
      const Vec masked = first_lanes(load(row + key) * splat(scale), last[m] + 1 - key, splat(kNone));
      store(row + key, masked);
      highest = max(highest, masked);
    }
    const float maximum = std::max(states[m]->maximum, max_lanes(highest));
    // A row that sees no key of this span yet: every exponent below is minus infinity.
    const Vec reference = splat(maximum == kNone ? 0 : maximum);
    Vec sum = splat(0);
    for (long key = 0; key < kChunk; key += kLanes) {
      const Vec weight = exp(load(row + key) - reference);
      store(row + key, weight);
      sum = sum + weight;
    }
    float lanes[kLanes] = {states[m]->maximum};
    store(lanes, exp(load(lanes) - reference));
    decay[m] = lanes[0];
    states[m]->sum = states[m]->sum * decay[m] + sum_lanes(sum);
    states[m]->maximum = maximum;
  }

  long i = 0;
  for (; i + kWide * kLanes <= width; i += kWide * kLanes)
    add_values<P, M, kWide>(scores, values, next, count, cache.block_size, width, decay, states, i);
  for (; i < width; i += kLanes)
    add_values<P, M, 1>(scores, values, next, count, cache.block_size, width, decay, states, i);
}

template <class P>
using Chunk = void (*)(const Cache<P>&, const typename P::Input*, const int32_t*, long, long, bool, const long*, float,
                       State* const*);

template <class P, int... M>
constexpr Chunk<P> chunk_of(int rows, std::integer_sequence<int, M...>) {
  constexpr Chunk<P> chunks[] = {attend_chunk<P, M + 1>...};
  return chunks[rows - 1];
}

}  // namespace
