// What happens to each row between the matrix products. A row is summed in an order that depends on its width alone.
#include <cmath>

#include "operations.h"
#include "simd.h"

namespace {

// Below this many elements a second thread costs more than it does.
constexpr long kParallel = 1 << 15;

// x / sqrt(mean(x²) + eps), rounded to E, times weight. With `x` also residual += x before, which is what is
// normalised.
template <class E>
void rms_norm(const E* x, E* residual, const E* weight, E* out, long rows, long width, float eps) {
#pragma omp parallel for schedule(static) if (rows * width >= kParallel)
  for (long row = 0; row < rows; row++) {
    E* total = residual + row * width;
    Vec squares = splat(0);
    for (long i = 0; i < width; i += kLanes) {
      Vec v = load_part(total + i, width - i);
      if (x) {
        v = rounded(v + load_part(x + row * width + i, width - i), total);
        store_part(total + i, v, width - i);
      }
      squares = fma(v, v, squares);
    }
    const Vec scale = splat(1 / std::sqrt(sum_lanes(squares) / float(width) + eps));
    for (long i = 0; i < width; i += kLanes) {
      const Vec v = rounded(load_part(total + i, width - i) * scale, total);
      store_part(out + row * width + i, v * load_part(weight + i, width - i), width - i);
    }
  }
}

// x / (1 + e ** -x), rounded to E, times up. The exponent is bounded where the result is zero to float32 anyway.
template <class E>
void silu_mul(const E* gate_up, E* out, long rows, long width) {
#pragma omp parallel for schedule(static) if (rows * width >= kParallel)
  for (long row = 0; row < rows; row++) {
    const E* gate = gate_up + row * 2 * width;
    for (long i = 0; i < width; i += kLanes) {
      const Vec v = load_part(gate + i, width - i);
      const Vec silu = v / (splat(1) + exp(min(splat(0) - v, splat(88))));
      store_part(out + row * width + i, rounded(silu, out) * load_part(gate + width + i, width - i), width - i);
    }
  }
}

}  // namespace

// With x null: out = rms_norm(residual); else residual += x first. x, residual, out: (rows, width).
EXPORT void aix_rms_norm(const void* x, void* residual, const void* weight, void* out, long rows, long width, float eps,
                         int bf16) {
  if (bf16)
    rms_norm((const Bf16*)x, (Bf16*)residual, (const Bf16*)weight, (Bf16*)out, rows, width, eps);
  else
    rms_norm((const float*)x, (float*)residual, (const float*)weight, (float*)out, rows, width, eps);
}

// gate_up (rows, 2 width), out (rows, width)
EXPORT void aix_silu_mul(const void* gate_up, void* out, long rows, long width, int bf16) {
  if (bf16)
    silu_mul((const Bf16*)gate_up, (Bf16*)out, rows, width);
  else
    silu_mul((const float*)gate_up, (float*)out, rows, width);
}
