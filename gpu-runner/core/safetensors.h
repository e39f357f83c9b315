// The header of a safetensors file, read and checked by the core itself, whatever was read above it. The same rules as
// patch/safetensors.ts, in other code; the tests hold the two against each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace portllm {

// Longest JSON that is read, and the most of everything in it: what RUNNER_HEADER_CAP and patch/header-json.ts say.
constexpr uint64_t kHeaderCap = 16u << 20;
constexpr uint64_t kTensorCap = 100000;
constexpr uint64_t kDimensionCap = 16;
constexpr uint64_t kNameCap = 1024;  // UTF-16 code units

struct StoredDtype {
  const char *name;
  uint64_t bits;
  int32_t dtype;  // of portllm_dtype, or -1 where the core does not compute with it
};

struct StoredTensor {
  std::string_view name;  // UTF-8; may hold any character
  const StoredDtype *dtype;
  uint64_t first_dimension, dimension_count;
  uint64_t begin;  // first byte, counted from the start of the file
  uint64_t end;
};

// A tensor's sizes.
struct Shape {
  const uint64_t *sizes;
  uint64_t count;

  const uint64_t *begin() const { return sizes; }
  const uint64_t *end() const { return sizes + count; }
};

// Refers to the bytes that it was read from. Few blocks of memory of its own, however many tensors: thousands of small ones
// would stay with the allocator of the thread.
struct Header {
  uint64_t data_offset;
  std::vector<StoredTensor> tensors;  // in the order of their data, which they cover without a gap
  std::vector<uint64_t> dimensions;
  std::vector<char> names;  // those that the bytes hold with escapes; it never grows, so that the views into it hold

  Shape shape(const StoredTensor &tensor) const { return {dimensions.data() + tensor.first_dimension, tensor.dimension_count}; }
};

// Length of a file's header, prefix and JSON, from the `size` first bytes of the file (8 are looked at).
uint64_t header_length(const uint8_t *bytes, uint64_t size, uint64_t file_size);

// Reads the `size` first bytes of a file, of which the header is the first part. Fails with the first thing that is wrong.
// Time and memory are linear in the header.
Header read_header(const uint8_t *bytes, uint64_t size, uint64_t file_size);

// As many tensors from `next` on as `room` bytes hold as JSON, for holding this reading against another one
// (portllm_read_header); `next` becomes the first that is left out.
std::string described(const Header &header, uint64_t &next, uint64_t room);

// A name for a sentence: in quotes, cut, and without control characters.
std::string quoted(std::string_view name);

}  // namespace portllm
