// Bytes for weights and factors, as many as are wanted from one seed: fuzz inputs stay small.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "../portllm_core.h"

namespace fuzz {

inline uint64_t next(uint64_t &state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

enum Content : uint8_t { kOrdinary, kAnyFinite, kAnyBits, kZeros };

// `count` stored elements: ordinary weights, any finite values, any bits (NaN and infinities among them), or zeros of both signs.
inline std::vector<uint8_t> elements(int32_t dtype, uint64_t count, Content content, uint64_t seed) {
  static constexpr uint64_t kBytes[] = {4, 2, 2, 8, 1, 1, 1}, kExponentBits[] = {8, 5, 8, 11, 4, 5, 8};
  const uint64_t size = kBytes[dtype], bits = 8 * size, exponent_bits = kExponentBits[dtype];
  const uint64_t mantissa_bits = bits - 1 - exponent_bits, bias = (1ull << (exponent_bits - 1)) - 1;
  uint64_t state = seed * 2 + 1;
  std::vector<uint8_t> bytes(count * size);
  for (uint64_t i = 0; i < count; i++) {
    uint64_t value = next(state);
    if (content == kZeros) value &= 1ull << (bits - 1);
    const uint64_t sign_and_mantissa = value & ~(((1ull << exponent_bits) - 1) << mantissa_bits);
    // Between 2^-3 and 2, so that sums neither vanish nor overflow.
    if (content == kOrdinary) value = sign_and_mantissa | ((bias - 3 + (value >> 60) % 4) << mantissa_bits);
    if (content == kAnyFinite && ((value >> mantissa_bits) & ((1ull << exponent_bits) - 1)) == (1ull << exponent_bits) - 1) value = sign_and_mantissa;
    std::memcpy(&bytes[i * size], &value, size);
  }
  return bytes;
}

}  // namespace fuzz
