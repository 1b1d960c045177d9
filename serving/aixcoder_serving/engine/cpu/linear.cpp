// y = x · Wᵀ with a packed weight: decoding (a few rows) is bound by reading W once, prefill by multiplying.
//
// W (N, K) is packed in panels of 2 vectors of columns: for each unit along K, the units of all columns of the panel.
// A thread reads its panels as one stream. N and K are padded with zeros.
#include <algorithm>
#include <utility>

#include "scratch.h"
#include "simd.h"

namespace {

constexpr int COLUMNS = 2 * LANES;
constexpr long UNIT_BYTES = COLUMNS * 4;
// Units along K that are multiplied for all row tiles before the next ones: they stay in the first cache. Each such part
// is summed from zero and then added, so that rounding errors grow with the number of parts, not with K.
constexpr long DEPTH = 64;
// Row tiles that share one pass over the weight.
constexpr long TILES = 16;
constexpr long AHEAD = 2048;

long units(long width, int per_unit) { return (width + per_unit - 1) / per_unit; }
long panels(long columns) { return (columns + COLUMNS - 1) / COLUMNS; }

// What `scratch` is used for here.
struct PackedRows;

// One tile: sums (M, COLUMNS) += rows (count, M) · weight (count, COLUMNS).
// `next` is fetched into the cache meanwhile, LINES lines for each unit.
template <class P, int M, int LINES>
void multiply_tile(const typename P::Input* rows, const char* weight, long count, float* sums, const char* next) {
    Vec sum[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
        sum[m][0] = splat(0);
        sum[m][1] = splat(0);
    }
    for (long k = 0; k < count; k++) {
        const auto first = P::weight(weight);
        const auto second = P::weight(weight + UNIT_BYTES / 2);
#pragma GCC unroll 2
        for (int line = 0; line < LINES; line++) __builtin_prefetch(next + line * CACHE_LINE);
        next += LINES * CACHE_LINE;
        weight += UNIT_BYTES;
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const auto x = rows[m];
            sum[m][0] = P::multiply(sum[m][0], first, x);
            sum[m][1] = P::multiply(sum[m][1], second, x);
        }
        rows += M;
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
        store(sums + m * COLUMNS, load(sums + m * COLUMNS) + sum[m][0]);
        store(sums + m * COLUMNS + LANES, load(sums + m * COLUMNS + LANES) + sum[m][1]);
    }
}

template <class P>
using Tile = void (*)(const typename P::Input*, const char*, long, float*, const char*);

template <class P, int LINES, int... M>
constexpr Tile<P> tile_of(int rows, std::integer_sequence<int, M...>) {
    constexpr Tile<P> tiles[] = {multiply_tile<P, M + 1, LINES>...};
    return tiles[rows - 1];
}

// Rows in tiles of almost equal height: tile i has rows [begin(i), begin(i + 1)).
struct Tiling {
    long rows, count;
    long begin(long i) const { return rows * i / count; }
    int height(long i) const { return int(begin(i + 1) - begin(i)); }
};

template <class P>
void pack_rows(const typename P::Element* x, long width, int height, typename P::Input* packed) {
    for (int m = 0; m < height; m++)
        for (long k = 0, unit = 0; k < width; k += P::PER_UNIT, unit++)
            packed[unit * height + m] = P::input(x + m * width + k, int(std::min<long>(width - k, P::PER_UNIT)));
}

template <class P>
void linear(const typename P::Element* x, const char* weight, typename P::Element* y, long rows, long width, long columns) {
    constexpr auto heights = std::make_integer_sequence<int, P::ROWS>();
    const long depth = units(width, P::PER_UNIT);
    const Tiling tiling{rows, (rows + P::ROWS - 1) / P::ROWS};
    // Packed rows of one group of tiles, which share one pass over the weight.
    auto* packed = scratch<PackedRows, typename P::Input>(std::min(tiling.count, TILES) * P::ROWS * depth);

#pragma omp parallel
    for (long group = 0; group < tiling.count; group += TILES) {
        const long group_end = std::min(group + TILES, tiling.count);
        const long top = tiling.begin(group), bottom = tiling.begin(group_end);
#pragma omp for schedule(static)
        for (long i = group; i < group_end; i++)
            pack_rows<P>(x + tiling.begin(i) * width, width, tiling.height(i), packed + (tiling.begin(i) - top) * depth);

        alignas(CACHE_LINE) float sums[TILES * P::ROWS * COLUMNS];
#pragma omp for schedule(static)
        for (long panel = 0; panel < panels(columns); panel++) {
            memset(sums, 0, (bottom - top) * COLUMNS * sizeof(float));
            const char* block = weight + panel * depth * UNIT_BYTES;
            for (long k = 0; k < depth; k += DEPTH) {
                const long count = std::min(DEPTH, depth - k);
                const char* next = block + count * UNIT_BYTES;
                for (long i = group; i < group_end; i++) {
                    const int height = tiling.height(i);
                    const auto* tile_rows = packed + (tiling.begin(i) - top) * depth + k * height;
                    float* tile_sums = sums + (tiling.begin(i) - top) * COLUMNS;
                    // A single tile fetches its own block a bit ahead; of several, the first two fetch the next block.
                    if (group_end - group == 1)
                        tile_of<P, 2>(height, heights)(tile_rows, block, count, tile_sums, block + AHEAD);
                    else if (i - group < 2)
                        tile_of<P, 1>(height, heights)(tile_rows, block, count, tile_sums, next + (i - group) * count * CACHE_LINE);
                    else
                        tile_of<P, 0>(height, heights)(tile_rows, block, count, tile_sums, next);
                }
                block = next;
            }
            for (long row = top; row < bottom; row++) {
                const float* row_sums = sums + (row - top) * COLUMNS;
                const long left = columns - panel * COLUMNS;
                auto* out = y + row * columns + panel * COLUMNS;
                store_part(out, load(row_sums), left);
                if (left > LANES) store_part(out + LANES, load(row_sums + LANES), left - LANES);
            }
        }
    }
}

template <class E, int PER_UNIT>
void pack(const E* w, E* packed, long columns, long width) {
    const long depth = units(width, PER_UNIT);
#pragma omp parallel for schedule(static)
    for (long panel = 0; panel < panels(columns); panel++) {
        E* out = packed + panel * depth * COLUMNS * PER_UNIT;
        for (long k = 0; k < depth; k++)
            for (long n = panel * COLUMNS; n < (panel + 1) * COLUMNS; n++)
                for (long part = k * PER_UNIT; part < (k + 1) * PER_UNIT; part++)
                    *out++ = n < columns && part < width ? w[n * width + part] : E(0);
    }
}

}  // namespace

// Elements of the packed form of a weight (columns, width).
EXPORT long aix_packed_elements(long columns, long width, int bf16) {
    const int per_unit = bf16 ? 2 : 1;
    return panels(columns) * COLUMNS * units(width, per_unit) * per_unit;
}

EXPORT void aix_pack(const void* w, void* packed, long columns, long width, int bf16) {
    if (bf16)
        pack<Bf16, 2>((const Bf16*)w, (Bf16*)packed, columns, width);
    else
        pack<float, 1>((const float*)w, (float*)packed, columns, width);
}

// y (rows, columns) = x (rows, width) · Wᵀ
EXPORT void aix_linear(const void* x, const void* packed, void* y, long rows, long width, long columns, int bf16) {
    if (bf16)
        linear<Bfloat16>((const Bf16*)x, (const char*)packed, (Bf16*)y, rows, width, columns);
    else
        linear<Float32>((const float*)x, (const char*)packed, (float*)y, rows, width, columns);
}
