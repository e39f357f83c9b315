// Counting NaN and infinity, for ingest. Plain loops over blocks whose counters fit the element's own
// width: the compiler turns them into vector code that runs at memory speed.
#include <algorithm>
#include <cstring>

#include "status.h"
#include "tensor.h"

namespace portllm {
namespace {

// Elements whose bits under `mask` are all set.
template <class Word>
uint64_t count_masked(const uint8_t *bytes, uint64_t elements, Word mask) {
  constexpr uint64_t kBlock = sizeof(Word) == 1 ? 240 : 4096;
  uint64_t total = 0;
  for (uint64_t start = 0; start < elements; start += kBlock) {
    const uint64_t end = std::min(elements, start + kBlock);
    Word count = 0;
    for (uint64_t i = start; i < end; i++) {
      Word word;
      std::memcpy(&word, bytes + i * sizeof(Word), sizeof(Word));
      count = static_cast<Word>(count + ((word & mask) == mask ? 1 : 0));
    }
    total += count;
  }
  return total;
}

}  // namespace
}  // namespace portllm

using namespace portllm;

extern "C" int32_t portllm_count_non_finite(const void *bytes, uint64_t size, int32_t dtype, double *count,
                                            char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!count || (!bytes && size)) fail(PORTLLM_INVALID, "an argument is null");
    const uint64_t element = element_bytes(dtype);
    if (!element) fail(PORTLLM_INVALID, "dtype %d cannot be counted", dtype);
    if (size % element) {
      fail(PORTLLM_INVALID, "%llu bytes are no whole number of %llu-byte elements", static_cast<unsigned long long>(size),
           static_cast<unsigned long long>(element));
    }
    const auto *data = static_cast<const uint8_t *>(bytes);
    const uint64_t elements = size / element;
    uint64_t total = 0;
    switch (dtype) {
      case PORTLLM_F32: total = count_masked<uint32_t>(data, elements, 0x7f800000u); break;
      case PORTLLM_F16: total = count_masked<uint16_t>(data, elements, 0x7c00u); break;
      case PORTLLM_BF16: total = count_masked<uint16_t>(data, elements, 0x7f80u); break;
      case PORTLLM_F64: total = count_masked<uint64_t>(data, elements, 0x7ff0000000000000u); break;
      case PORTLLM_F8_E4M3: total = count_masked<uint8_t>(data, elements, 0x7fu); break;
      case PORTLLM_F8_E5M2: total = count_masked<uint8_t>(data, elements, 0x7cu); break;
      case PORTLLM_F8_E8M0: total = count_masked<uint8_t>(data, elements, 0xffu); break;
    }
    *count = static_cast<double>(total);
  });
}
