// The two 8-bit formats with an exact float32 value for each number (OCP 8-bit floating point, 1.0).
#pragma once

#include "float_formats.h"

namespace portllm {

// The upper half of a float16.
inline float from_f8_e5m2(uint8_t byte) { return from_f16(static_cast<uint16_t>(byte << 8)); }

// E4M3FN: 4 bits of exponent with bias 7, no infinities; all ones is NaN.
inline float from_f8_e4m3(uint8_t byte) {
  const uint32_t sign = static_cast<uint32_t>(byte & 0x80u) << 24;
  const uint32_t magnitude = byte & 0x7fu;
  if (magnitude == 0x7fu) return float_of(sign | kNanF32);
  if (magnitude < 8) return float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-9f));
  return float_of(sign | ((magnitude << 20) + (120u << 23)));
}

}  // namespace portllm
