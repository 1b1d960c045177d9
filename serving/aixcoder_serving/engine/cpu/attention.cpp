// Causal attention over the paged cache, for decoding, verification and prefill alike.
//
// A row is one query of one head. Its keys are taken in chunks of CHUNK, and chunks in spans of SPAN, both counted from
// position 0: each span is a softmax of its own (maximum, sum, weighted values), and the spans are merged in their
// order. So a row's result depends on its own position only, and the spans of a long sequence can be computed by several
// threads.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "cache.h"
#include "scratch.h"

namespace {

constexpr long CHUNK = 64;
constexpr long SPAN = 512;
// Rows that one task takes at most (but always whole queries): they share what is read of the cache.
constexpr long TASK_ROWS = 48;
// Vectors of keys, or of a head's values, that are multiplied at once.
constexpr int WIDE = 4;
constexpr float NONE = -INFINITY;

template <class P>
constexpr int group_rows() {
    return LANES == 8 ? 2 : P::ROWS == 12 ? 4 : 6;
}

// The softmax of one row over the keys so far: maximum, sum of exp(score - maximum), and values weighted likewise.
struct State {
    float maximum, sum;
    float values[MAX_HEAD_DIM];

    void clear(long width) {
        maximum = NONE;
        sum = 0;
        std::fill(values, values + width, 0.0f);
    }
    void merge(const State& span, long width) {
        const float both = std::max(maximum, span.maximum);
        if (both == NONE) return;
        float lanes[LANES] = {maximum - both, span.maximum - both};
        store(lanes, exp(load(lanes)));
        sum = sum * lanes[0] + span.sum * lanes[1];
        for (long i = 0; i < width; i += LANES)
            store(values + i, fma(load(span.values + i), splat(lanes[1]), load(values + i) * splat(lanes[0])));
        maximum = both;
    }
};

// What `scratch` is used for here: the states of a task, of one span of it, its packed queries, and of all tasks' spans.
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

// scores (M, CHUNK) of M packed queries (units, M) with WIDE vectors of keys, from column `first`.
template <class P, int M>
INLINE void multiply_keys(const typename P::Input* queries, const typename P::Element* const* keys, long units, long block_size, float* scores) {
    Vec sum[M][WIDE];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) sum[m][v] = splat(0);
    for (long unit = 0; unit < units; unit++) {
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) {
            const auto weight = P::weight(keys[v] + unit * block_size * P::PER_UNIT);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) sum[m][v] = P::multiply(sum[m][v], weight, queries[unit * M + m]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) store(scores + m * CHUNK + v * LANES, sum[m][v]);
}

// values (M rows of State) = values * decay + weights (M, CHUNK) · V, for V vectors of a head from element `first`.
template <class P, int M, int V>
INLINE void add_values(const float* weights, const typename P::Element* const* blocks, long count, long block_size, long width, const float* decay, State* const* states, long first) {
    Vec sum[M][V];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[m][v] = splat(0);
    for (long start = 0; start < count; start += block_size, blocks++) {
        const auto* row = *blocks + first;
        const long end = std::min(start + block_size, count);
        for (long key = start; key < end; key++, row += width) {
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                const Vec value = load(row + v * LANES);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) sum[m][v] = fma(value, splat(weights[m * CHUNK + key]), sum[m][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            float* total = states[m]->values + first + v * LANES;
            store(total, fma(load(total), splat(decay[m]), sum[m][v]));
        }
}

// One chunk of keys for M rows. `last[m]` is the last key, counted from the chunk's first, that row m may see.
template <class P, int M>
void attend_chunk(const Cache<P>& cache, const typename P::Input* queries, const int32_t* blocks, long kv_head, long count, const long* last, float scale, State* const* states) {
    using E = typename P::Element;
    const long width = cache.value_width();
    const E* keys[CHUNK / LANES];
    const E* values[CHUNK / 16];
    for (long key = 0; key < CHUNK; key += LANES) {
        // Behind the last key any address will do: those scores are masked.
        const long block = blocks[key < count ? key / cache.block_size : 0];
        keys[key / LANES] = cache.keys(block, kv_head) + key % cache.block_size * P::PER_UNIT;
        if (key % cache.block_size == 0) values[key / cache.block_size] = cache.values(block, kv_head);
    }

    alignas(CACHE_LINE) float scores[M * CHUNK];
    for (int v = 0; v < CHUNK / LANES; v += WIDE)
        multiply_keys<P, M>(queries, keys + v, cache.key_units(), cache.block_size, scores + v * LANES);

    float decay[M];
    for (int m = 0; m < M; m++) {
        float* row = scores + m * CHUNK;
        Vec highest = splat(NONE);
        for (long key = 0; key < CHUNK; key += LANES) {
            const Vec masked = first_lanes(load(row + key) * splat(scale), last[m] + 1 - key, splat(NONE));
            store(row + key, masked);
            highest = max(highest, masked);
        }
        const float maximum = std::max(states[m]->maximum, max_lanes(highest));
        // A row that sees no key of this span yet: every exponent below is minus infinity.
        const Vec reference = splat(maximum == NONE ? 0 : maximum);
        Vec sum = splat(0);
        for (long key = 0; key < CHUNK; key += LANES) {
            const Vec weight = exp(load(row + key) - reference);
            store(row + key, weight);
            sum = sum + weight;
        }
        float lanes[LANES] = {states[m]->maximum};
        store(lanes, exp(load(lanes) - reference));
        decay[m] = lanes[0];
        states[m]->sum = states[m]->sum * decay[m] + sum_lanes(sum);
        states[m]->maximum = maximum;
    }

    long i = 0;
    for (; i + WIDE * LANES <= width; i += WIDE * LANES)
        add_values<P, M, WIDE>(scores, values, count, cache.block_size, width, decay, states, i);
    for (; i < width; i += LANES)
        add_values<P, M, 1>(scores, values, count, cache.block_size, width, decay, states, i);
}

template <class P>
using Chunk = void (*)(const Cache<P>&, const typename P::Input*, const int32_t*, long, long, const long*, float, State* const*);

template <class P, int... M>
constexpr Chunk<P> chunk_of(int rows, std::integer_sequence<int, M...>) {
    constexpr Chunk<P> chunks[] = {attend_chunk<P, M + 1>...};
    return chunks[rows - 1];
}

template <class E>
void write(const State& state, long head_dim, E* out) {
    const Vec scale = splat(1 / state.sum);
    for (long i = 0; i < head_dim; i += LANES) store_part(out + i, load(state.values + i) * scale, head_dim - i);
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
        constexpr int GROUP = group_rows<P>();
        const long row_count = rows(task), units = cache.key_units();
        State* spans = scratch<Spans, State>(row_count);
        auto* queries = scratch<Queries, typename P::Input>(row_count * units);
        for (long first = 0; first < row_count; first += GROUP) {
            const long height = std::min<long>(GROUP, row_count - first);
            for (long m = 0; m < height; m++)
                for (long unit = 0; unit < units; unit++)
                    queries[first * units + unit * height + m] = P::input(q + offset(task, first + m) + unit * P::PER_UNIT, P::PER_UNIT);
        }
        const int32_t* blocks = batch.blocks(task.sequence);
        const float scale = 1 / std::sqrt(float(cache.head_dim));
        const long end = position(task, row_count - 1) + 1;
        for (long row = 0; row < row_count; row++) totals[row].clear(cache.value_width());
        for (long span = task.first_span; span < task.last_span; span++) {
            for (long row = 0; row < row_count; row++) spans[row].clear(cache.value_width());
            for (long start = span * SPAN; start < std::min(end, (span + 1) * SPAN); start += CHUNK) {
                for (long first = 0; first < row_count; first += GROUP) {
                    const int height = int(std::min<long>(GROUP, row_count - first));
                    long last[GROUP];
                    State* states[GROUP];
                    for (int m = 0; m < height; m++) {
                        last[m] = position(task, first + m) - start;
                        states[m] = spans + first + m;
                    }
                    if (last[height - 1] < 0) continue;
                    const long count = std::min(CHUNK, last[height - 1] + 1);
                    chunk_of<P>(height, std::make_integer_sequence<int, GROUP>())(
                        cache, queries + first * units, blocks + start / cache.block_size, task.kv_head, count, last, scale, states);
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
    const long tile = std::max(1L, TASK_ROWS / attention.per_kv());
    std::vector<Task> whole, parts;
    for (long sequence = 0; sequence < batch.count; sequence++)
        for (long kv_head = 0; kv_head < cache.kv_heads; kv_head++)
            for (long first = batch.query_start[sequence]; first < batch.query_start[sequence + 1]; first += tile) {
                const long tokens = std::min<long>(tile, batch.query_start[sequence + 1] - first);
                const long spans = (batch.positions[first + tokens - 1] + SPAN) / SPAN;
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
EXPORT void aix_attend(const void* q, void* out, long heads, void* cache, long kv_heads, long head_dim, long block_size, const int32_t* positions, const int32_t* query_start, const int32_t* slots, const int32_t* tables, long tokens, long sequences, long table_width, int bf16) {
    const Sequences batch{positions, query_start, slots, tables, tokens, sequences, table_width};
    if (bf16)
        attend<Bfloat16>(q, out, heads, {(Bf16*)cache, kv_heads, head_dim, block_size}, batch);
    else
        attend<Float32>(q, out, heads, {(float*)cache, kv_heads, head_dim, block_size}, batch);
}
