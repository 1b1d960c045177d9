// Writing the cache: keys and values of new tokens, and copies of whole blocks.
#include "cache.h"
#include "operations.h"

#include <algorithm>

namespace {

constexpr long kParallelTokens = 16;

// (a, b) of the pairs (i, i + D / 2) becomes (a cos - b sin, b cos + a sin), in float32, rounded once.
template <class E>
void rotate(const E* head, long half, const float* cos, const float* sin, E* out) {
  for (long i = 0; i < half; i += kLanes) {
    const long left = half - i;
    const Vec a = load_part(head + i, left), b = load_part(head + half + i, left);
    const Vec c = load_part(cos + i, left), s = load_part(sin + i, left);
    store_part(out + i, fma(a, c, splat(0) - b * s), left);
    store_part(out + half + i, fma(b, c, a * s), left);
  }
}

template <class P>
void rope_and_store(const typename P::Element* qkv, const Sequences& batch, const Cache<P>& cache, const float* cos,
                    const float* sin, long heads, typename P::Element* q) {
  using E = typename P::Element;
  const long dim = cache.head_dim;
#pragma omp parallel for schedule(static) if (batch.tokens >= kParallelTokens)
  for (long token = 0; token < batch.tokens; token++) {
    const long position = batch.positions[token];
    const long sequence =
        std::upper_bound(batch.query_start, batch.query_start + batch.count, token) - batch.query_start - 1;
    const long block = batch.blocks(sequence)[position / cache.block_size];
    const long offset = position % cache.block_size;
    const float* token_cos = cos + position * (dim / 2);
    const float* token_sin = sin + position * (dim / 2);
    const E* head = qkv + token * (heads + 2 * cache.kv_heads) * dim;
    for (long h = 0; h < heads; h++, head += dim)
      rotate(head, dim / 2, token_cos, token_sin, q + (token * heads + h) * dim);
    for (long g = 0; g < cache.kv_heads; g++, head += dim) {
      E rotated[kMaxHeadDim];
      rotate(head, dim / 2, token_cos, token_sin, rotated);
      E* keys = cache.keys(block, g) + offset * P::kPerUnit;
      for (long d = 0; d < dim; d += P::kPerUnit)
        memcpy(keys + d * cache.block_size, rotated + d, P::kPerUnit * sizeof(E));
    }
    for (long g = 0; g < cache.kv_heads; g++, head += dim)
      memcpy(cache.values(block, g) + offset * cache.value_width(), head, dim * sizeof(E));
  }
}

}  // namespace

// Elements of one block of one layer.
EXPORT long aix_block_elements(long kv_heads, long head_dim, long block_size) {
  return kv_heads * Cache<Float32>{nullptr, kv_heads, head_dim, block_size}.head_elements();
}

EXPORT void aix_rope_and_store(const void* qkv, void* q, long heads, void* cache, long kv_heads, long head_dim,
                               long block_size, const float* cos, const float* sin, const int32_t* positions,
                               const int32_t* query_start, const int32_t* slots, const int32_t* tables, long tokens,
                               long sequences, long table_width, int bf16) {
  const Sequences batch{positions, query_start, slots, tables, tokens, sequences, table_width};
  if (bf16)
    rope_and_store<Bfloat16>((const Bf16*)qkv, batch, {(Bf16*)cache, kv_heads, head_dim, block_size}, cos, sin, heads,
                             (Bf16*)q);
  else
    rope_and_store<Float32>((const float*)qkv, batch, {(float*)cache, kv_heads, head_dim, block_size}, cos, sin, heads,
                            (float*)q);
}

// Block pairs[2 i] becomes pairs[2 i + 1].
EXPORT void aix_copy_blocks(void* cache, long block_bytes, const long* pairs, long count) {
  for (long i = 0; i < count; i++)
    memcpy((char*)cache + pairs[2 * i + 1] * block_bytes, (const char*)cache + pairs[2 * i] * block_bytes, block_bytes);
}
