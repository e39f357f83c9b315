// Conversions between float32 and the narrower formats, bit by bit. This is their specification; the
// vector paths use the processor's instructions or the same integer steps, and are tested against it.
#pragma once

#include <cstdint>
#include <cstring>

// The CUDA kernels (cuda/) use the same functions.
#if defined(__CUDACC__)
#define PORTLLM_HOST_DEVICE __host__ __device__
#else
#define PORTLLM_HOST_DEVICE
#endif

namespace portllm {

// The only NaN that the core writes, so that all paths and processors agree.
constexpr uint32_t kNanF32 = 0x7fc00000u;
constexpr uint16_t kNanF16 = 0x7e00u;
constexpr uint16_t kNanBF16 = 0x7fc0u;
constexpr uint64_t kNanF64 = 0x7ff8000000000000u;
constexpr uint8_t kNanF8E4M3 = 0x7fu;
constexpr uint8_t kNanF8E5M2 = 0x7eu;

PORTLLM_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

PORTLLM_HOST_DEVICE inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

PORTLLM_HOST_DEVICE inline float from_bf16(uint16_t half) { return float_of(static_cast<uint32_t>(half) << 16); }

// Round to nearest, ties to even: add just under half a unit, plus one where the kept part is odd.
PORTLLM_HOST_DEVICE inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  return static_cast<uint16_t>(value != value ? kNanBF16 : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

PORTLLM_HOST_DEVICE inline float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t shifted = static_cast<uint32_t>(half & 0x7fffu) << 13;
  // Exponent and mantissa moved to float32's places are the value times 2^-112, subnormals included.
  const uint32_t magnitude = shifted >= 0x0f800000u ? shifted | 0x7f800000u : bits_of(float_of(shifted) * 0x1p112f);
  return float_of(sign | magnitude);
}

// Rounds a magnitude (float32 bits, no NaN) to kMantissa bits; what is too large comes out beyond the largest finite value.
template <int kMantissa, int kBias>
PORTLLM_HOST_DEVICE inline uint32_t narrowed(uint32_t magnitude) {
  constexpr uint32_t kShift = 23 - kMantissa;
  const uint32_t rebased = magnitude - (static_cast<uint32_t>(127 - kBias) << 23);
  const uint32_t normal = (rebased + ((1u << (kShift - 1)) - 1u) + ((rebased >> kShift) & 1u)) >> kShift;
  // Below the normal numbers the unit is fixed. Added to a number whose last place is that unit, the magnitude is rounded by
  // the addition, and is the count of units in the last bits of the sum.
  constexpr uint32_t kMove = static_cast<uint32_t>(127 + 24 - kBias - kMantissa) << 23;
  const uint32_t subnormal = bits_of(float_of(magnitude) + float_of(kMove)) - kMove;
  return magnitude >= static_cast<uint32_t>(128 - kBias) << 23 ? normal : subnormal;
}

// From 65520 on, half-way to the next step above the largest finite value, everything is infinity.
PORTLLM_HOST_DEVICE inline uint16_t to_f16(float value) {
  const uint32_t rounded = narrowed<10, 15>(bits_of(value) & 0x7fffffffu);
  const uint32_t bits = (bits_of(value) >> 16 & 0x8000u) | (rounded < 0x7c00u ? rounded : 0x7c00u);
  return static_cast<uint16_t>(value != value ? kNanF16 : bits);
}

// Exponent and mantissa moved to float32's places are the value times 2^-120, subnormals included.
PORTLLM_HOST_DEVICE inline float from_f8_e4m3(uint8_t byte) {
  const float magnitude = float_of(static_cast<uint32_t>(byte & 0x7fu) << 20) * 0x1p120f;
  const uint32_t sign = static_cast<uint32_t>(byte & 0x80u) << 24;
  return float_of((byte & 0x7fu) == 0x7fu ? kNanF32 : sign | bits_of(magnitude));
}

// The upper half of a float16.
PORTLLM_HOST_DEVICE inline float from_f8_e5m2(uint8_t byte) { return from_f16(static_cast<uint16_t>(byte << 8)); }

// There are no infinities.
PORTLLM_HOST_DEVICE inline uint8_t to_f8_e4m3(float value) {
  const uint32_t rounded = narrowed<3, 7>(bits_of(value) & 0x7fffffffu);
  const uint32_t bits = (bits_of(value) >> 24 & 0x80u) | rounded;
  return static_cast<uint8_t>(value != value || rounded >= 0x7fu ? kNanF8E4M3 : bits);
}

PORTLLM_HOST_DEVICE inline uint8_t to_f8_e5m2(float value) {
  const uint32_t rounded = narrowed<2, 15>(bits_of(value) & 0x7fffffffu);
  const uint32_t bits = (bits_of(value) >> 24 & 0x80u) | (rounded < 0x7cu ? rounded : 0x7cu);
  return static_cast<uint8_t>(value != value ? kNanF8E5M2 : bits);
}

// float32 by rounding to odd: rounding that again to fewer bits gives what rounding `value` once would have given.
PORTLLM_HOST_DEVICE inline float to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double rounded = static_cast<double>(nearest);
  const uint32_t inexact = rounded != value ? 1 : 0;
  const uint32_t away = (rounded < 0 ? -rounded : rounded) > (value < 0 ? -value : value) ? 1 : 0;
  return float_of((bits_of(nearest) - away) | inexact);  // towards zero: from infinity to the largest value
}

}  // namespace portllm
