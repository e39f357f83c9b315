// Conversions between float32 and the 16-bit formats, bit by bit. This is their specification; the
// vector paths use the processor's instructions or the same integer steps, and are tested against it.
#pragma once

#include <cstdint>
#include <cstring>

namespace portllm {

// The only NaN that the core writes, so that all paths and processors agree.
constexpr uint32_t kNanF32 = 0x7fc00000u;
constexpr uint16_t kNanF16 = 0x7e00u;
constexpr uint16_t kNanBF16 = 0x7fc0u;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float from_bf16(uint16_t half) { return float_of(static_cast<uint32_t>(half) << 16); }

// Round to nearest, ties to even: add just under half a unit, plus one where the kept part is odd.
inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return kNanBF16;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  uint32_t mantissa = half & 0x3ffu;
  if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return float_of(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  // Zero or subnormal: mantissa * 2^-24, exact in float32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return float_of(sign | bits_of(magnitude));
}

inline uint16_t to_f16(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return kNanF16;
  // From 65520 on, half-way to the next step above the largest finite value, everything is infinity.
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude >= 0x38800000u) {
    const uint32_t rebased = magnitude - (112u << 23);
    return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
  }
  // Subnormal in float16: units of 2^-24. Below half a unit (2^-25 itself ties to even) it is zero.
  if (magnitude <= 0x33000000u) return sign;
  const uint32_t shift = 126u - (magnitude >> 23);
  const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t kept = mantissa >> shift;
  const uint32_t dropped = mantissa & ((1u << shift) - 1u);
  const uint32_t half = 1u << (shift - 1u);
  const uint32_t up = dropped > half || (dropped == half && (kept & 1u)) ? 1u : 0u;
  return static_cast<uint16_t>(sign | (kept + up));
}

}  // namespace portllm
