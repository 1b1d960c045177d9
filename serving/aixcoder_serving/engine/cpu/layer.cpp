// A layer in one call: the operations that `LlamaModel.forward` would call one by one, in its order, so with its bits.
// A step of few tokens is so short that each call from Python would show.
#include <algorithm>

#include "operations.h"
#include "scratch.h"
#include "simd.h"

namespace {

// What `scratch` is used for here: a token's inputs of rope or silu, its outputs of them, what is added to the residual.
struct Wide;
struct Queries;
struct Inner;
struct Added;

}  // namespace

// Weights are packed, norms plain; `next_norm` is the next layer's, or the model's last one. layer.py has the same.
struct Layer {
  const void *qkv, *o, *post_norm, *gate_up, *down, *next_norm;
  void* cache;
  const float *cos, *sin;
  long hidden, heads, kv_heads, head_dim, intermediate, block_size;
  float eps;
  int bf16;
};

// x, residual, out: (tokens, hidden). x is the normed residual; the layer is added to `residual`, and `out` is the norm
// of that, by `next_norm`. x and out may be the same.
EXPORT void aix_layer(const Layer* layer, const void* x, void* residual, void* out, const int32_t* positions,
                      const int32_t* query_start, const int32_t* slots, const int32_t* tables, long tokens,
                      long sequences, long table_width) {
  const Layer& l = *layer;
  const long element = l.bf16 ? sizeof(Bf16) : sizeof(float);
  const long query_width = l.heads * l.head_dim, qkv_width = query_width + 2 * l.kv_heads * l.head_dim;
  char* wide = scratch<Wide, char>(tokens * std::max(qkv_width, 2 * l.intermediate) * element);
  char* queries = scratch<Queries, char>(tokens * query_width * element);
  char* inner = scratch<Inner, char>(tokens * std::max({query_width, l.intermediate, l.hidden}) * element);
  char* added = scratch<Added, char>(tokens * l.hidden * element);

  aix_linear(x, l.qkv, wide, tokens, l.hidden, qkv_width, l.bf16);
  aix_rope_and_store(wide, queries, l.heads, l.cache, l.kv_heads, l.head_dim, l.block_size, l.cos, l.sin, positions,
                     query_start, slots, tables, tokens, sequences, table_width, l.bf16);
  aix_attend(queries, inner, l.heads, l.cache, l.kv_heads, l.head_dim, l.block_size, positions, query_start, slots,
             tables, tokens, sequences, table_width, l.bf16);
  aix_linear(inner, l.o, added, tokens, query_width, l.hidden, l.bf16);
  aix_rms_norm(added, residual, l.post_norm, inner, tokens, l.hidden, l.eps, l.bf16);
  aix_linear(inner, l.gate_up, wide, tokens, l.hidden, 2 * l.intermediate, l.bf16);
  aix_silu_mul(wide, inner, tokens, l.intermediate, l.bf16);
  aix_linear(inner, l.down, added, tokens, l.intermediate, l.hidden, l.bf16);
  aix_rms_norm(added, residual, l.next_norm, out, tokens, l.hidden, l.eps, l.bf16);
}
