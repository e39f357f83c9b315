// One element from t on: W + t, the rounding, and what the figures need of it. Both merge kernels use it.
#pragma once

#include <cuda_runtime.h>

#include "../float_formats.h"
#include "kernels.h"

namespace portllm::cuda {

// How an element of each dtype is stored, widened, and rounded to. `round_number` is for magnitudes below kFinite only,
// which all round to something finite.
struct F32 {
  using Stored = uint32_t;
  using Real = float;
  static constexpr float kFinite = __builtin_huge_valf();
  static __device__ float load(Stored bits) { return float_of(bits); }
  static __device__ Stored round_number(float value) { return bits_of(value); }
  static __device__ Stored round(float value) { return value != value ? kNanF32 : bits_of(value); }
};

struct F16 {
  using Stored = uint16_t;
  using Real = float;
  static constexpr float kFinite = 65520;
#if defined(__CUDA_ARCH__)
  // The processor's conversions: exact, and to nearest even with subnormals kept.
  static __device__ float load(Stored bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
  }
  static __device__ Stored round_number(float value) {
    Stored bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
  }
  static __device__ Stored round(float value) { return value != value ? kNanF16 : round_number(value); }
#else
  static __device__ float load(Stored bits) { return from_f16(bits); }
  static __device__ Stored round_number(float value) { return to_f16(value); }
  static __device__ Stored round(float value) { return to_f16(value); }
#endif
};

struct BF16 {
  using Stored = uint16_t;
  using Real = float;
  static constexpr float kFinite = 0x1.ffp127f;
  static __device__ float load(Stored bits) { return from_bf16(bits); }
  static __device__ Stored round_number(float value) {
    const uint32_t bits = bits_of(value);
    return static_cast<Stored>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
  static __device__ Stored round(float value) { return to_bf16(value); }
};

struct F64 {
  using Stored = uint64_t;
  using Real = double;
  static constexpr double kFinite = __builtin_huge_val();
  static __device__ double load(Stored bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  static __device__ Stored round_number(double value) {
    Stored bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  static __device__ Stored round(double value) { return value != value ? kNanF64 : round_number(value); }
};

struct F8E4M3 {
  using Stored = uint8_t;
  using Real = float;
  static constexpr float kFinite = 464;
  static __device__ float load(Stored bits) { return from_f8_e4m3(bits); }
  static __device__ Stored round_number(float value) { return to_f8_e4m3(value); }
  static __device__ Stored round(float value) { return to_f8_e4m3(value); }
};

struct F8E5M2 {
  using Stored = uint8_t;
  using Real = float;
  static constexpr float kFinite = 61440;
  static __device__ float load(Stored bits) { return from_f8_e5m2(bits); }
  static __device__ Stored round_number(float value) { return to_f8_e5m2(value); }
  static __device__ Stored round(float value) { return to_f8_e5m2(value); }
};

// The operations of the rule, each rounded once, none fused but by name.
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float subtract(float a, float b) { return __fsub_rn(a, b); }
__device__ inline float add_square(float sum, float value) { return __fmaf_rn(value, value, sum); }
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double subtract(double a, double b) { return __dsub_rn(a, b); }
__device__ inline double add_square(double sum, double value) { return __dadd_rn(sum, __dmul_rn(value, value)); }
// A comparison, where the compilers' isfinite() differ. False for NaN.
__device__ inline bool below(float value, float bound) { return fabsf(value) < bound; }
__device__ inline bool below(double value, double bound) { return fabs(value) < bound; }

// Sums of squares of one lane within a panel.
template <class Real>
struct LaneFigures {
  Real patch = 0;
  Real realised = 0;
  Real residual = 0;

  __device__ void add(Real w, Real added, Real written) {
    const Real difference = subtract(written, w);
    patch = add_square(patch, added);
    realised = add_square(realised, difference);
    residual = add_square(residual, subtract(difference, added));
  }
};

// Gives the output's bits for W's; counts into `figures` where the output is finite, else into `non_finite`.
template <class Format>
__device__ inline typename Format::Stored finish(typename Format::Stored stored, float t, LaneFigures<typename Format::Real> &figures, uint32_t &non_finite) {
  using Real = typename Format::Real;
  const Real w = Format::load(stored), added = t;
  const typename Format::Stored rounded = Format::round(add(w, added));
  const Real written = Format::load(rounded);
  if (below(written, static_cast<Real>(__builtin_huge_val()))) figures.add(w, added, written);
  else non_finite++;
  return rounded;
}

}  // namespace portllm::cuda
