// Stored elements as floating-point numbers of the machine.
#pragma once

#include <cstring>

#include "float_formats.h"
#include "portllm_core.h"

namespace portllm {

// Size in bytes of one element, or 0 for a number that is no dtype.
inline uint64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case PORTLLM_F32: return 4;
    case PORTLLM_F16: case PORTLLM_BF16: return 2;
    case PORTLLM_F64: return 8;
    case PORTLLM_F8_E4M3: case PORTLLM_F8_E5M2: case PORTLLM_F8_E8M0: return 1;
    default: return 0;
  }
}

// How an element of each dtype is stored, widened exactly, and rounded to (nearest, ties to even; NaN made canonical).
struct ElementF32 {
  using Storage = uint32_t;
  using Real = float;
  static float load(Storage bits) { return float_of(bits); }
  static Storage round(float value) { return value != value ? kNanF32 : bits_of(value); }
};

struct ElementF16 {
  using Storage = uint16_t;
  using Real = float;
  static float load(Storage bits) { return from_f16(bits); }
  static Storage round(float value) { return to_f16(value); }
};

struct ElementBF16 {
  using Storage = uint16_t;
  using Real = float;
  static float load(Storage bits) { return from_bf16(bits); }
  static Storage round(float value) { return to_bf16(value); }
};

struct ElementF64 {
  using Storage = uint64_t;
  using Real = double;
  static double load(Storage bits) {
    double value;
    std::memcpy(&value, &bits, 8);
    return value;
  }
  static Storage round(double value) {
    Storage bits = kNanF64;
    if (value == value) std::memcpy(&bits, &value, 8);
    return bits;
  }
};

struct ElementF8E4M3 {
  using Storage = uint8_t;
  using Real = float;
  static float load(Storage bits) { return from_f8_e4m3(bits); }
  static Storage round(float value) { return to_f8_e4m3(value); }
};

struct ElementF8E5M2 {
  using Storage = uint8_t;
  using Real = float;
  static float load(Storage bits) { return from_f8_e5m2(bits); }
  static Storage round(float value) { return to_f8_e5m2(value); }
};

// `count` stored elements; Real is double, or holds every value of the dtype. Inlined, so that it becomes vector code where
// the caller is compiled for vectors.
template <class Element, class Real>
__attribute__((always_inline)) inline void read_as(const uint8_t *from, uint64_t count, Real *to) {
  for (uint64_t j = 0; j < count; j++) {
    typename Element::Storage stored;
    std::memcpy(&stored, from + j * sizeof stored, sizeof stored);
    to[j] = static_cast<Real>(Element::load(stored));
  }
}

template <class Real>
__attribute__((always_inline)) inline void read_elements(int32_t dtype, const uint8_t *from, uint64_t count, Real *to) {
  switch (dtype) {
    case PORTLLM_F32: return read_as<ElementF32>(from, count, to);
    case PORTLLM_F16: return read_as<ElementF16>(from, count, to);
    case PORTLLM_BF16: return read_as<ElementBF16>(from, count, to);
    case PORTLLM_F64: return read_as<ElementF64>(from, count, to);
    case PORTLLM_F8_E4M3: return read_as<ElementF8E4M3>(from, count, to);
    case PORTLLM_F8_E5M2: return read_as<ElementF8E5M2>(from, count, to);
  }
}

}  // namespace portllm
