// Fuzz target: any bytes as the start of a safetensors file. The core's reading must equal plain_header.h's.
//
// Input: a byte of flags, two bytes of data length (little-endian), then the JSON (its prefix is made for it), or with
// flag 1 the prefix and the JSON.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../safetensors.h"
#include "../status.h"
#include "plain_header.h"

namespace {

std::optional<std::vector<plain::Tensor>> read_by_core(const uint8_t *bytes, uint64_t size, uint64_t file_size) {
  try {
    const portllm::Header header = portllm::read_header(bytes, size, file_size);
    uint64_t next = 0;
    if (portllm::described(header, next, UINT64_MAX).size() < 2 || next != header.tensors.size()) std::abort();
    std::vector<plain::Tensor> tensors;
    for (const portllm::StoredTensor &one : header.tensors) {
      if (portllm::quoted(one.name).size() > 110) std::abort();
      const portllm::Shape shape = header.shape(one);
      tensors.push_back({plain::decoded(std::string(one.name)), one.dtype->name, {shape.begin(), shape.end()}, one.begin, one.end});
    }
    std::sort(tensors.begin(), tensors.end());
    return tensors;
  } catch (const portllm::Failure &failure) {
    if (failure.status != PORTLLM_INVALID || failure.message.size() < 10) std::abort();
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 3) return 0;
  const uint64_t data_length = data[1] | data[2] << 8, text = size - 3;
  const bool is_raw = data[0] & 1;
  const uint64_t length = is_raw ? text : 8 + text;
  // Of exactly this size, so that reading one byte more is seen.
  const std::unique_ptr<uint8_t[]> bytes(new uint8_t[length]);
  for (int i = 0; !is_raw && i < 8; i++) bytes[i] = static_cast<uint8_t>(text >> (8 * i));
  if (text) std::memcpy(bytes.get() + (is_raw ? 0 : 8), data + 3, text);
  const uint64_t file_size = length + data_length;
  if (read_by_core(bytes.get(), length, file_size) != plain::read(bytes.get(), length, file_size)) {
    std::fprintf(stderr, "the core and plain_header.h read this header differently\n");
    std::abort();
  }
  return 0;
}
