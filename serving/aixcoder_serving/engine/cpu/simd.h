// One vector type for each build: 16 floats where the compiler may use AVX-512, else 8 (AVX2).
//
// Weights, keys and activations are multiplied in units of 32 bits along the summed dimension: one float32, or two
// bfloat16 that follow each other. Each output has one accumulator that takes the units in order, in parts of a fixed
// length, so its value depends neither on the tile that it was computed in nor on the number of threads.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define EXPORT extern "C"
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr long kCacheLine = 64;
constexpr long kMaxHeadDim = 512;

#ifdef __AVX512F__
using Vec = __m512;
constexpr int kLanes = 16;
INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
INLINE Vec splat(float x) { return _mm512_set1_ps(x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
INLINE Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// The first `count` lanes of a, the others of b.
INLINE Vec first_lanes(Vec a, long count, Vec b) {
  return _mm512_mask_mov_ps(b, __mmask16(count >= kLanes ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1), a);
}
// a where x >= bound, else zero.
INLINE Vec where_at_least(Vec x, Vec bound, Vec a) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ), a);
}
// 2 ** n for whole numbers n in [-126, 127].
INLINE Vec power_of_two(Vec n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE Vec low_bf16(Vec pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
INLINE Vec high_bf16(Vec pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(int(0xFFFF0000))));
}
INLINE Vec load(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
// To the nearest, ties to even, as torch rounds; not-a-number stays that.
INLINE void store(uint16_t* p, Vec v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i out = _mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), nan, _mm512_set1_epi32(0x7FC0));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(out));
}
#else
using Vec = __m256;
constexpr int kLanes = 8;
INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
INLINE Vec splat(float x) { return _mm256_set1_ps(x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE Vec first_lanes(Vec a, long count, Vec b) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int limit = int(count > kLanes ? kLanes : count < 0 ? 0 : count);
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(limit), lane)));
}
INLINE Vec where_at_least(Vec x, Vec bound, Vec a) { return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_GE_OQ), a); }
INLINE Vec power_of_two(Vec n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE Vec low_bf16(Vec pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16)); }
INLINE Vec high_bf16(Vec pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(int(0xFFFF0000))));
}
INLINE Vec load(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
INLINE void store(uint16_t* p, Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i out = _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7FC0), nan);
  _mm_storeu_si128((__m128i*)p, _mm_packus_epi32(_mm256_castsi256_si128(out), _mm256_extracti128_si256(out, 1)));
}
#endif

using Bf16 = uint16_t;

INLINE float to_float(float x) { return x; }
INLINE float to_float(Bf16 x) {
  const uint32_t bits = uint32_t(x) << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// The first `count` elements; zero in the other lanes, and nothing behind them is read or written.
template <class E>
INLINE Vec load_part(const E* p, long count) {
  if (count >= kLanes) return load(p);
  E lanes[kLanes] = {};
  memcpy(lanes, p, count * sizeof(E));
  return load(lanes);
}
template <class E>
INLINE void store_part(E* p, Vec v, long count) {
  if (count >= kLanes) return store(p, v);
  E lanes[kLanes];
  store(lanes, v);
  memcpy(p, lanes, count * sizeof(E));
}

// The value that an element of type E holds after it.
INLINE Vec rounded(Vec v, const float*) { return v; }
INLINE Vec rounded(Vec v, const Bf16*) {
  Bf16 lanes[kLanes];
  store(lanes, v);
  return load(lanes);
}

// e ** x to about one unit in the last place; zero below -87.3, where float32 has no more normal numbers; x <= 88.
INLINE Vec exp(Vec x) {
  const Vec lowest = splat(-87.3f);
  const Vec n = round(max(x, lowest) * splat(1.44269504f));
  // ln 2 in two parts: the first alone would lose the last digits of the remainder.
  const Vec r = fma(n, splat(-1.42860677e-06f), fma(n, splat(-0.693145752f), max(x, lowest)));
  // The Taylor series: |r| <= ln(2) / 2 leaves 5e-9 behind the seventh power.
  Vec y = splat(1.0f / 5040);
  y = fma(y, r, splat(1.0f / 720));
  y = fma(y, r, splat(1.0f / 120));
  y = fma(y, r, splat(1.0f / 24));
  y = fma(y, r, splat(1.0f / 6));
  y = fma(y, r, splat(0.5f));
  y = fma(y, r, splat(1));
  y = fma(y, r, splat(1));
  return where_at_least(x, lowest, y * power_of_two(n));
}

INLINE float sum_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
}

INLINE float max_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

// How a type of element is multiplied. `Weight` is a vector of units as it is used, `Input` one unit of the other side,
// the same for all lanes (`count` elements are left at p). kRows x 2 accumulators and what they take fit the registers.
struct Float32 {
  using Element = float;
  using Input = float;
  using Weight = Vec;
  static constexpr int kPerUnit = 1;
  static constexpr int kRows = kLanes == 16 ? 14 : 6;
  static INLINE Weight weight(const void* p) { return load((const float*)p); }
  static INLINE Input input(const float* p, int) { return *p; }
  static INLINE Vec multiply(Vec sum, Weight w, Input x) { return fma(w, splat(x), sum); }
};

#ifdef __AVX512BF16__
// Products are exact; they are added to the sum in the order high, low, rounded to nearest, denormals as zero.
struct Bfloat16 {
  using Element = Bf16;
  using Input = uint32_t;
  using Weight = __m512bh;
  static constexpr int kPerUnit = 2;
  static constexpr int kRows = 14;
  static INLINE Weight weight(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static INLINE Input input(const Bf16* p, int count) { return p[0] | (count > 1 ? uint32_t(p[1]) << 16 : 0); }
  static INLINE Vec multiply(Vec sum, Weight w, Input x) {
    return _mm512_dpbf16_ps(sum, w, (__m512bh)_mm512_set1_epi32(int(x)));
  }
};
#else
struct Bfloat16 {
  using Element = Bf16;
  struct Input {
    float low, high;
  };
  struct Weight {
    Vec low, high;
  };
  static constexpr int kPerUnit = 2;
  static constexpr int kRows = kLanes == 16 ? 12 : 4;
  static INLINE Weight weight(const void* p) {
    const Vec pairs = load((const float*)p);
    return {low_bf16(pairs), high_bf16(pairs)};
  }
  static INLINE Input input(const Bf16* p, int count) { return {to_float(p[0]), count > 1 ? to_float(p[1]) : 0}; }
  static INLINE Vec multiply(Vec sum, const Weight& w, const Input& x) {
    return fma(w.low, splat(x.low), fma(w.high, splat(x.high), sum));
  }
};
#endif

}  // namespace
