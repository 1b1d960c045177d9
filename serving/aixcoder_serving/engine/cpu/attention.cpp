// Causal attention over the paged cache, for decoding, verification and prefill alike.
//
// A row is one query of one head. Its keys are taken in chunks of kChunk, and chunks in spans of kSpan, both counted
// from position 0: each span is a softmax of its own (maximum, sum, weighted values), and the spans are merged in their
// order. So a row's result depends on its own position only, and the spans of a long sequence can be computed by
// several threads.
#include <omp.h>

#include <algorithm>
#include <vector>

#include "attention_chunk.h"
#include "operations.h"
#include "scratch.h"

namespace {

constexpr long kSpan = 512;
// Rows that one task takes at most (but always whole queries): they share what is read of the cache.
constexpr long kTaskRows = 48;
// What `scratch` is used for here: the states of a task, of one span of it, its packed queries; the spans of all tasks.
struct Totals;
struct Spans;
struct Queries;
struct Partials;

// Some queries of one sequence and one kv head, over the spans [first_span, last_span).
struct Task {
  long sequence, kv_head, first_token, tokens, first_span, last_span;
  // Where the states of its rows are written, in rows; -1: the task is whole and writes the output.
  long partial;
};

template <class E>
void write(const State& state, long head_dim, E* out) {
  const Vec scale = splat(1 / state.sum);
  for (long i = 0; i < head_dim; i += kLanes) store_part(out + i, load(state.values + i) * scale, head_dim - i);
}

template <class P>
struct Attention {
  using E = typename P::Element;
  const E* q;
  E* out;
  const Sequences& batch;
  const Cache<P>& cache;
  long heads;

  long per_kv() const { return heads / cache.kv_heads; }
  long rows(const Task& task) const { return task.tokens * per_kv(); }
  // The element in q and in out where a task's row begins: row is the head within the kv head, for each token.
  long offset(const Task& task, long row) const {
    const long token = task.first_token + row / per_kv();
    return (token * heads + task.kv_head * per_kv() + row % per_kv()) * cache.head_dim;
  }
  long position(const Task& task, long row) const { return batch.positions[task.first_token + row / per_kv()]; }

  // States of the task's rows: merged over its spans.
  void run(const Task& task, State* totals) const {
    constexpr int kGroup = group_rows<P>();
    const long row_count = rows(task), units = cache.key_units();
    State* spans = scratch<Spans, State>(row_count);
    auto* queries = scratch<Queries, typename P::Input>(row_count * units);
    for (long first = 0; first < row_count; first += kGroup) {
      const long height = std::min<long>(kGroup, row_count - first);
      for (long m = 0; m < height; m++)
        for (long unit = 0; unit < units; unit++)
          queries[first * units + unit * height + m] =
              P::input(q + offset(task, first + m) + unit * P::kPerUnit, P::kPerUnit);
    }
    const int32_t* blocks = batch.blocks(task.sequence);
    const float scale = 1 / std::sqrt(float(cache.head_dim));
    const long end = position(task, row_count - 1) + 1;
    for (long row = 0; row < row_count; row++) totals[row].clear(cache.value_width());
    for (long span = task.first_span; span < task.last_span; span++) {
      for (long row = 0; row < row_count; row++) spans[row].clear(cache.value_width());
      for (long start = span * kSpan; start < std::min(end, (span + 1) * kSpan); start += kChunk) {
        for (long first = 0; first < row_count; first += kGroup) {
          const int height = int(std::min<long>(kGroup, row_count - first));
          long last[kGroup];
          State* states[kGroup];
          for (int m = 0; m < height; m++) {
            last[m] = position(task, first + m) - start;
            states[m] = spans + first + m;
          }
          if (last[height - 1] < 0) continue;
          const long count = std::min(kChunk, last[height - 1] + 1);
          chunk_of<P>(height, std::make_integer_sequence<int, kGroup>())(
              cache, queries + first * units, blocks + start / cache.block_size, task.kv_head, count,
              start + 2 * kChunk <= end, last, scale, states);
        }
      }
      for (long row = 0; row < row_count; row++) totals[row].merge(spans[row], cache.value_width());
    }
  }
};

template <class P>
void attend(const Attention<P>& attention) {
  const Sequences& batch = attention.batch;
  const Cache<P>& cache = attention.cache;
  const long tile = std::max(1L, kTaskRows / attention.per_kv());
  std::vector<Task> whole, parts;
  for (long sequence = 0; sequence < batch.count; sequence++)
    for (long kv_head = 0; kv_head < cache.kv_heads; kv_head++)
      for (long first = batch.query_start[sequence]; first < batch.query_start[sequence + 1]; first += tile) {
        const long tokens = std::min<long>(tile, batch.query_start[sequence + 1] - first);
        const long spans = (batch.positions[first + tokens - 1] + kSpan) / kSpan;
        whole.push_back({sequence, kv_head, first, tokens, 0, spans, -1});
      }

  // Few tasks: their spans become tasks of their own. The values are the same either way.
  long partial_rows = 0;
  if (long(whole.size()) < 4L * omp_get_max_threads())
    for (Task& task : whole) {
      if (task.last_span == 1) continue;
      task.partial = partial_rows;
      for (long span = 0; span < task.last_span; span++, partial_rows += attention.rows(task))
        parts.push_back({task.sequence, task.kv_head, task.first_token, task.tokens, span, span + 1, partial_rows});
    }
  for (const Task& task : whole)
    if (task.partial < 0) parts.push_back(task);
  State* partial = scratch<Partials, State>(partial_rows);

#pragma omp parallel if (parts.size() > 1)
  {
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < parts.size(); i++) {
      const Task& task = parts[i];
      State* states = task.partial < 0 ? scratch<Totals, State>(attention.rows(task)) : partial + task.partial;
      attention.run(task, states);
      if (task.partial < 0)
        for (long row = 0; row < attention.rows(task); row++)
          write(states[row], cache.head_dim, attention.out + attention.offset(task, row));
    }
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < whole.size(); i++) {
      const Task& task = whole[i];
      if (task.partial < 0) continue;
      const long rows = attention.rows(task);
      for (long row = 0; row < rows; row++) {
        State* total = partial + task.partial + row;
        for (long span = 1; span < task.last_span; span++) total->merge(total[span * rows], cache.value_width());
        write(*total, cache.head_dim, attention.out + attention.offset(task, row));
      }
    }
  }
}

template <class P>
void attend(const void* q, void* out, long heads, const Cache<P>& cache, const Sequences& batch) {
  using E = typename P::Element;
  attend(Attention<P>{(const E*)q, (E*)out, batch, cache, heads});
}

}  // namespace

// q (tokens, heads, head_dim), out (tokens, heads * head_dim)
EXPORT void aix_attend(const void* q, void* out, long heads, void* cache, long kv_heads, long head_dim, long block_size,
                       const int32_t* positions, const int32_t* query_start, const int32_t* slots,
                       const int32_t* tables, long tokens, long sequences, long table_width, int bf16) {
  const Sequences batch{positions, query_start, slots, tables, tokens, sequences, table_width};
  if (bf16)
    attend<Bfloat16>(q, out, heads, {(Bf16*)cache, kv_heads, head_dim, block_size}, batch);
  else
    attend<Float32>(q, out, heads, {(float*)cache, kv_heads, head_dim, block_size}, batch);
}
