// y = x · Wᵀ with a packed weight: decoding (a few rows) is bound by reading W once, prefill by multiplying.
//
// W (N, K) is packed in panels of 2 vectors of columns: for each unit along K, the units of all columns of the panel.
// A thread reads its panels as one stream. N and K are padded with zeros.
#include <omp.h>

#include <algorithm>
#include <utility>

#include "operations.h"
#include "scratch.h"
#include "simd.h"

namespace {

constexpr int kColumns = 2 * kLanes;
constexpr long kUnitBytes = kColumns * 4;
// Units along K that are multiplied for all row tiles before the next ones: they stay in the first two caches.
constexpr long kDepth = 512;
// Units that are summed from zero and then added to the sum of those before: rounding errors grow with the number of
// parts, not with K.
constexpr long kPart = 128;
// Row tiles that share one pass over the weight.
constexpr long kTiles = 24;
// Where and how far before its use a weight is fetched for a single tile, as measured (AMD Zen 4): into the first cache
// and 4 KiB for few rows of wide vectors; else into the second, out of which it is not pushed again, and 8 KiB.
constexpr bool few(int height) { return kLanes == 16 && height <= 4; }
constexpr long ahead(int height) { return few(height) ? 4096 : 8192; }
// Weights that a thread takes at a time where others may take the rest.
constexpr long kChunkBytes = 256 << 10;

long units(long width, int per_unit) { return (width + per_unit - 1) / per_unit; }
long panels(long columns) { return (columns + kColumns - 1) / kColumns; }

// What `scratch` is used for here.
struct PackedRows;

// One tile: sums (M, kColumns) += rows (count, M) · weight (count, kColumns); the first ones replace them. Meanwhile
// what lies at `next` is fetched into a cache, 0, 1 or 2 lines for each unit.
template <class P, int M>
void multiply_tile(const typename P::Input* rows, const char* weight, long count, float* sums, bool first,
                   const char* next, long lines) {
  for (long start = 0; start < count; start += kPart, first = false) {
    Vec sum[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sum[m][0] = sum[m][1] = splat(0);
    for (long k = start; k < std::min(start + kPart, count); k++) {
      const auto left = P::weight(weight);
      const auto right = P::weight(weight + kUnitBytes / 2);
      constexpr int level = few(M) ? 3 : 2;
      __builtin_prefetch(next, 0, level);
      __builtin_prefetch(next + lines / 2 * kCacheLine, 0, level);
      next += lines * kCacheLine;
      weight += kUnitBytes;
#pragma GCC unroll 16
      for (int m = 0; m < M; m++) {
        const auto x = rows[m];
        sum[m][0] = P::multiply(sum[m][0], left, x);
        sum[m][1] = P::multiply(sum[m][1], right, x);
      }
      rows += M;
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
      for (int side = 0; side < 2; side++) {
        float* total = sums + m * kColumns + side * kLanes;
        store(total, first ? sum[m][side] : load(total) + sum[m][side]);
      }
  }
}

template <class P>
using Tile = void (*)(const typename P::Input*, const char*, long, float*, bool, const char*, long);

template <class P, int... M>
constexpr Tile<P> tile_of(int rows, std::integer_sequence<int, M...>) {
  constexpr Tile<P> tiles[] = {multiply_tile<P, M + 1>...};
  return tiles[rows - 1];
}

// Rows in tiles of almost equal height: tile i has rows [begin(i), begin(i + 1)).
struct Tiling {
  long rows, count;
  long begin(long i) const { return rows * i / count; }
  int height(long i) const { return int(begin(i + 1) - begin(i)); }
};

// One call of `linear`. The packed rows are tile by tile (units, height).
template <class P>
struct Product {
  const typename P::Element* x;
  const char* weight;
  typename P::Element* y;
  long width, columns, depth;
  Tiling tiling;
  typename P::Input* packed;

  void pack(long tile) const {
    const int height = tiling.height(tile);
    const auto* rows = x + tiling.begin(tile) * width;
    auto* out = packed + tiling.begin(tile) * depth;
    for (long k = 0; k < width; k += P::kPerUnit)
      for (int m = 0; m < height; m++)
        *out++ = P::input(rows + m * width + k, int(std::min<long>(width - k, P::kPerUnit)));
  }

  // The tiles [first, last) with one panel.
  void multiply(long first, long last, long panel) const {
    alignas(kCacheLine) float sums[kTiles * P::kRows * kColumns];
    const long top = tiling.begin(first), bottom = tiling.begin(last);
    const char* block = weight + panel * depth * kUnitBytes;
    for (long k = 0; k < depth; k += kDepth) {
      const long count = std::min(kDepth, depth - k);
      for (long tile = first; tile < last; tile++) {
        const int height = tiling.height(tile);
        // A single tile fetches what it needs a bit later; of several, the first two fetch the next block.
        const bool single = last - first == 1;
        const long distance = single ? ahead(height) : count * (kUnitBytes + (tile - first) % 2 * kCacheLine);
        const int lines = single ? 2 : tile - first < 2;
        tile_of<P>(height, std::make_integer_sequence<int, P::kRows>())(
            packed + tiling.begin(tile) * depth + k * height, block, count,
            sums + (tiling.begin(tile) - top) * kColumns, k == 0, block + distance, lines);
      }
      block += count * kUnitBytes;
    }
    const long left = columns - panel * kColumns;
    for (long row = top; row < bottom; row++) {
      const float* row_sums = sums + (row - top) * kColumns;
      auto* out = y + row * columns + panel * kColumns;
      store_part(out, load(row_sums), left);
      if (left > kLanes) store_part(out + kLanes, load(row_sums + kLanes), left - kLanes);
    }
  }
};

template <class P>
void linear(const typename P::Element* x, const char* weight, typename P::Element* y, long rows, long width,
            long columns) {
  const long depth = units(width, P::kPerUnit);
  const Tiling tiling{rows, (rows + P::kRows - 1) / P::kRows};
  auto* packed = scratch<PackedRows, typename P::Input>(rows * depth);
  const Product<P> product{x, weight, y, width, columns, depth, tiling, packed};
  const long panel_count = panels(columns);
  if (tiling.count == 1) {
    product.pack(0);
    // In equal parts, each one stream, and always the same one for a thread.
#pragma omp parallel for schedule(static)
    for (long panel = 0; panel < panel_count; panel++) product.multiply(0, 1, panel);
    return;
  }
  const long groups = (tiling.count + kTiles - 1) / kTiles;
  const long tasks = groups * panel_count;
  const long chunk = std::max(1L, std::min(kChunkBytes / (depth * kUnitBytes), tasks / (4 * omp_get_max_threads())));
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (long tile = 0; tile < tiling.count; tile++) product.pack(tile);
    // As threads come: one that the system takes its processor from holds nobody up for long.
#pragma omp for schedule(dynamic, chunk)
    for (long task = 0; task < tasks; task++) {
      const long first = task / panel_count * kTiles;
      product.multiply(first, std::min(first + kTiles, tiling.count), task % panel_count);
    }
  }
}

template <class E, int kPerUnit>
void pack(const E* w, E* packed, long columns, long width) {
  const long depth = units(width, kPerUnit);
  // Units of one column that lie in one line of the cache are taken together.
  constexpr long kTogether = kCacheLine / 4;
#pragma omp parallel for schedule(static)
  for (long panel = 0; panel < panels(columns); panel++) {
    E* out = packed + panel * depth * kColumns * kPerUnit;
    for (long first = 0; first < depth; first += kTogether)
      for (long column = 0; column < kColumns; column++) {
        const long n = panel * kColumns + column;
        for (long k = first * kPerUnit; k < std::min(first + kTogether, depth) * kPerUnit; k++)
          out[(k / kPerUnit * kColumns + column) * kPerUnit + k % kPerUnit] =
              n < columns && k < width ? w[n * width + k] : E(0);
      }
  }
}

}  // namespace

// Elements of the packed form of a weight (columns, width).
EXPORT long aix_packed_elements(long columns, long width, int bf16) {
  const int per_unit = bf16 ? 2 : 1;
  return panels(columns) * kColumns * units(width, per_unit) * per_unit;
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
