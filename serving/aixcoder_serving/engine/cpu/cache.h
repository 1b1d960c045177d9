// Where the keys and values of one layer lie.
//
// (blocks, kv heads), and there the keys, transposed so that scores are computed for a vector of keys at once:
// (units of the head, keys of the block), then the values (keys of the block, value_width). See simd.h for units.
#pragma once

#include "simd.h"

namespace {

template <class P>
struct Cache {
  using Element = typename P::Element;
  Element* data;
  long kv_heads, head_dim, block_size;

  long key_units() const { return head_dim / P::kPerUnit; }
  // Values are padded to whole vectors of either build.
  long value_width() const { return (head_dim + 15) / 16 * 16; }
  long head_elements() const { return block_size * (head_dim + value_width()); }
  Element* keys(long block, long head) const { return data + (block * kv_heads + head) * head_elements(); }
  Element* values(long block, long head) const { return keys(block, head) + block_size * head_dim; }
};

// The sequences of a step; see `Batch` in ops.py. The table of sequence s has the row slots[s].
struct Sequences {
  const int32_t *positions, *query_start, *slots, *tables;
  long tokens, count, table_width;

  const int32_t* blocks(long sequence) const { return tables + slots[sequence] * table_width; }
};

}  // namespace
