// An open safetensors file that the core has checked: the only thing that it merges from.
#pragma once

#include <memory>
#include <vector>

#include "portllm_core.h"
#include "safetensors.h"

namespace portllm {

// What a call of portllm_write_segments works on, kept alive: a tensor for each segment that merges, and the sources of
// the operands.
struct CheckedSegments {
  std::vector<std::shared_ptr<portllm_tensor>> tensors;
  std::vector<std::shared_ptr<portllm_source>> operands;
};

// Segments as they have to be: each merges whole rows of one tensor of the source with that tensor's dtype, its operands
// being whole rows of one tensor of their sources too, or copies any bytes; all of them in the order of the destination,
// without overlap. Fails before anything is written. Nothing can be added to the tensors afterwards.
CheckedSegments check_segments(const portllm_source &source, int destination, const portllm_segment *segments, uint64_t count,
                               const portllm_operand *operands, uint64_t operand_count);

}  // namespace portllm

struct portllm_source {
  int file;  // the core's own descriptor
  portllm::Header header;

  explicit portllm_source(int from);
  ~portllm_source();
  portllm_source(const portllm_source &) = delete;
};
