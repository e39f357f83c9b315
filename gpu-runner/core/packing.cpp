#include "packing.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "status.h"

namespace portllm {
namespace {

AlignedFloats allocate(uint64_t count) {
  const uint64_t bytes = rounded_up(checked_product(count, sizeof(float), "a packed factor"), 64);
  void *memory = nullptr;
  if (posix_memalign(&memory, 64, bytes) != 0) {
    fail(PORTLLM_MEMORY, "out of memory: a packed factor needs %llu bytes", static_cast<unsigned long long>(bytes));
  }
  return AlignedFloats(static_cast<float *>(memory));
}

// Where the elements lie, from the first one on, in elements.
struct Strides {
  uint64_t outer;
  uint64_t rank;
};

template <class Element>
float element(const uint8_t *bytes, uint64_t index) {
  typename Element::Storage stored;
  std::memcpy(&stored, bytes + index * sizeof stored, sizeof stored);
  return Element::load(stored);
}

// One whole tile. The two usual orders have loops that the compiler turns into vector code.
template <class Element, uint64_t kWidth>
void pack_tile(const uint8_t *from, uint64_t rank, Strides strides, float *__restrict to) {
  if (strides.outer == 1) {
    for (uint64_t k = 0; k < rank; k++) {
      typename Element::Storage stored[kWidth];
      std::memcpy(stored, from + k * strides.rank * sizeof stored[0], sizeof stored);
      for (uint64_t o = 0; o < kWidth; o++) to[k * kWidth + o] = Element::load(stored[o]);
    }
  } else if (strides.rank == 1 && kWidth == 4) {
    for (uint64_t k = 0; k < rank; k++) {
      for (uint64_t o = 0; o < 4; o++) to[k * 4 + o] = element<Element>(from, o * strides.outer + k);
    }
  } else {
    for (uint64_t o = 0; o < kWidth; o++) {
      for (uint64_t k = 0; k < rank; k++) to[k * kWidth + o] = element<Element>(from, o * strides.outer + k * strides.rank);
    }
  }
}

bool all_finite(const float *values, uint64_t count) {
  uint32_t largest = 0;
  for (uint64_t i = 0; i < count; i++) largest = std::max(largest, bits_of(values[i]) & 0x7fffffffu);
  return largest < 0x7f800000u;
}

template <class Element>
[[noreturn]] void name_the_first(const uint8_t *from, const char *name, uint64_t offset, uint64_t outer, uint64_t rank, Strides strides) {
  for (uint64_t o = 0; o < outer; o++) {
    for (uint64_t k = 0; k < rank; k++) {
      const uint64_t index = o * strides.outer + k * strides.rank;
      if ((bits_of(element<Element>(from, index)) & 0x7f800000u) == 0x7f800000u) {
        fail(PORTLLM_NONFINITE, "the %s holds a NaN or an infinity at element %llu", name, static_cast<unsigned long long>(offset + index));
      }
    }
  }
  fail(PORTLLM_NONFINITE, "the %s holds a NaN or an infinity", name);
}

template <class Element, uint64_t kWidth>
void pack_all(const portllm_matrix &factor, const char *name, uint64_t outer, uint64_t rank, Strides strides, float *to) {
  const auto *from = static_cast<const uint8_t *>(factor.bytes) + factor.offset * sizeof(typename Element::Storage);
  for (uint64_t first = 0; first < outer; first += kWidth) {
    const uint8_t *at = from + first * strides.outer * sizeof(typename Element::Storage);
    float *tile = to + first * rank;
    if (outer - first >= kWidth) {
      pack_tile<Element, kWidth>(at, rank, strides, tile);
    } else {
      for (uint64_t k = 0; k < rank; k++) {
        for (uint64_t o = 0; o < kWidth; o++) {
          tile[k * kWidth + o] = o < outer - first ? element<Element>(at, o * strides.outer + k * strides.rank) : 0.0f;
        }
      }
    }
    if (!all_finite(tile, rank * kWidth)) name_the_first<Element>(from, name, factor.offset, outer, rank, strides);
  }
}

template <class Element>
void pack_as(const portllm_matrix &factor, const char *name, uint64_t outer, uint64_t rank, Strides strides, uint64_t width, float *to) {
  if (width == kTileRows) pack_all<Element, kTileRows>(factor, name, outer, rank, strides, to);
  else pack_all<Element, kTileCols>(factor, name, outer, rank, strides, to);
}

}  // namespace

AlignedFloats pack(const portllm_matrix &factor, const char *name, uint64_t outer, uint64_t outer_stride, uint64_t rank,
                   uint64_t rank_stride, uint64_t width) {
  AlignedFloats packed = allocate(checked_product(rounded_up(outer, width), rank, "a packed factor"));
  const Strides strides{outer_stride, rank_stride};
  switch (factor.dtype) {
    case PORTLLM_F16: pack_as<ElementF16>(factor, name, outer, rank, strides, width, packed.get()); break;
    case PORTLLM_BF16: pack_as<ElementBF16>(factor, name, outer, rank, strides, width, packed.get()); break;
    default: pack_as<ElementF32>(factor, name, outer, rank, strides, width, packed.get()); break;
  }
  return packed;
}

void FreeMemory::operator()(float *memory) const { std::free(memory); }

}  // namespace portllm
