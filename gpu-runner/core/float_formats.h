// Conversions between float32 and the narrower formats, bit by bit. This is their specification; the
// vector paths use the processor's instructions or the same integer steps, and are tested against it.
#pragma once

#include <cstdint>
#include <cstring>

namespace portllm {

// The only NaN that the core writes, so that all paths and processors agree.
constexpr uint32_t kNanF32 = 0x7fc00000u;
constexpr uint16_t kNanF16 = 0x7e00u;
constexpr uint16_t kNanBF16 = 0x7fc0u;
constexpr uint64_t kNanF64 = 0x7ff8000000000000u;
constexpr uint8_t kNanF8E4M3 = 0x7fu;
constexpr uint8_t kNanF8E5M2 = 0x7eu;

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
  const uint32_t shifted = static_cast<uint32_t>(half & 0x7fffu) << 13;
  // Exponent and mantissa moved to float32's places are the value times 2^-112, subnormals included.
  const uint32_t magnitude = shifted >= 0x0f800000u ? shifted | 0x7f800000u : bits_of(float_of(shifted) * 0x1p112f);
  return float_of(sign | magnitude);
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

// Exponent and mantissa moved to float32's places are the value times 2^-120, subnormals included.
inline float from_f8_e4m3(uint8_t byte) {
  const float magnitude = float_of(static_cast<uint32_t>(byte & 0x7fu) << 20) * 0x1p120f;
  const uint32_t sign = static_cast<uint32_t>(byte & 0x80u) << 24;
  return float_of((byte & 0x7fu) == 0x7fu ? kNanF32 : sign | bits_of(magnitude));
}

// The upper half of a float16.
inline float from_f8_e5m2(uint8_t byte) { return from_f16(static_cast<uint16_t>(byte << 8)); }

// Rounds a magnitude (float32 bits, no NaN) to kMantissa bits; what is too large comes out beyond the largest finite value.
template <int kMantissa, int kBias>
uint32_t narrowed(uint32_t magnitude) {
  constexpr uint32_t kUnit = 1 - kBias - kMantissa + 127;  // biased exponent of the smallest subnormal
  if (magnitude >= static_cast<uint32_t>(128 - kBias) << 23) {
    constexpr uint32_t kShift = 23 - kMantissa;
    const uint32_t rebased = magnitude - (static_cast<uint32_t>(127 - kBias) << 23);
    return (rebased + ((1u << (kShift - 1)) - 1u) + ((rebased >> kShift) & 1u)) >> kShift;
  }
  if (magnitude <= (kUnit - 1) << 23) return 0;  // half a unit ties to even
  const uint32_t shift = 23 + kUnit - (magnitude >> 23);
  const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t kept = mantissa >> shift;
  const uint32_t dropped = mantissa & ((1u << shift) - 1u);
  const uint32_t half = 1u << (shift - 1u);
  return kept + (dropped > half || (dropped == half && (kept & 1u)) ? 1u : 0u);
}

inline uint8_t to_f8_e4m3(float value) {
  const uint32_t rounded = value != value ? 0x7fu : narrowed<3, 7>(bits_of(value) & 0x7fffffffu);
  if (rounded >= 0x7fu) return kNanF8E4M3;  // no infinities
  return static_cast<uint8_t>((bits_of(value) >> 24 & 0x80u) | rounded);
}

inline uint8_t to_f8_e5m2(float value) {
  if (value != value) return kNanF8E5M2;
  const uint32_t rounded = narrowed<2, 15>(bits_of(value) & 0x7fffffffu);
  return static_cast<uint8_t>((bits_of(value) >> 24 & 0x80u) | (rounded > 0x7cu ? 0x7cu : rounded));
}

// float32 by rounding to odd: rounding that again to fewer bits gives what rounding `value` once would have given.
inline float to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (value != value || static_cast<double>(nearest) == value) return nearest;
  uint32_t bits = bits_of(nearest);
  const double magnitude = value < 0 ? -value : value;
  if (static_cast<double>(float_of(bits & 0x7fffffffu)) > magnitude) bits--;  // towards zero; from infinity to the largest value
  return float_of(bits | 1u);
}

}  // namespace portllm
