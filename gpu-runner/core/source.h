// An open safetensors file that the core has checked: the only thing that it merges from.
#pragma once

#include "portllm_core.h"
#include "safetensors.h"

namespace portllm {

// Writing in more threads than this helps nobody.
constexpr uint32_t kThreadCap = 1024;

// The segments of one portllm_write_segments call: each merges whole rows of one tensor of the source with that tensor's
// dtype and has its operands, or copies any bytes; in the order of the destination, without overlap. Fails before anything is written.
void check_segments(const portllm_source &source, int destination, const portllm_segment *segments, uint64_t count, uint64_t operand_count);

}  // namespace portllm

struct portllm_source {
  int file;  // the core's own descriptor
  portllm::Header header;

  explicit portllm_source(int from);
  ~portllm_source();
  portllm_source(const portllm_source &) = delete;
};
