// An open safetensors file that the core has checked: the only thing that it merges from.
#pragma once

#include <memory>
#include <vector>

#include "portllm_core.h"
#include "safetensors.h"

namespace portllm {

// Fills `to`. Returns 0, the number of the error that stopped it, or -1 where the file ends before.
int read_fully(int file, uint8_t *to, uint64_t size, uint64_t offset);

// The same; fails where the file cannot be read, or ends before. `what` is read, in words.
void read_exactly(int file, uint8_t *to, uint64_t size, uint64_t offset, const char *what);

// What a call of portllm_write_segments works on, kept alive: the outputs' sources, the tensors of the segments that merge,
// and the operands' sources.
struct CheckedOutputs {
  std::vector<std::shared_ptr<portllm_source>> sources;
  std::vector<std::shared_ptr<portllm_tensor>> tensors;
  std::vector<std::shared_ptr<portllm_source>> operands;
};

// Outputs as they have to be: no two into one file, none into a file that is read, and each segment merges whole rows of one tensor of the source with that tensor's dtype, its operands
// being whole rows of one tensor of their sources too, or copies any bytes; all of them in the order of the destination,
// without overlap. Fails before anything is written. Nothing can be added to the tensors afterwards.
CheckedOutputs check_outputs(const portllm_output *outputs, uint64_t count, const portllm_operand *operands, uint64_t operand_count);

}  // namespace portllm

struct portllm_source {
  int file;  // the core's own descriptor
  std::vector<uint8_t> header_bytes;
  portllm::Header header;

  explicit portllm_source(int from);
  ~portllm_source();
  portllm_source(const portllm_source &) = delete;
};
