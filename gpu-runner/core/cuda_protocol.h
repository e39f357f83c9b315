// What the merge core and its CUDA helper (cuda/helper.cu) say to each other. The helper is a process of its own, so that
// a crash of the GPU's driver ends it and not the one that merges. Both map one shared memory file, cut into slots; each
// slot has a socket beside it, on which one request at a time is answered. A slot with its socket is a lane.
#pragma once

#include <cstdint>

namespace portllm {

constexpr uint32_t kCudaProtocol = 1;

// File descriptors of the helper: the shared memory, then the lanes' sockets.
constexpr int kCudaMemoryFile = 3;
constexpr int kCudaLaneFile = 4;
constexpr uint32_t kCudaLanes = 16;

// Rows that a lane merges at once: as many as fit the slot. Four MiB take 80 µs over PCIe 5: much longer than a request.
constexpr uint64_t kCudaSlotBytes = 4u << 20;
constexpr uint64_t kCudaSlotRows = 8192;

struct CudaRowFigures {
  double patch;  // sums of squares of one row
  double realised;
  double residual;
  uint64_t non_finite;
};

// In a slot, figures come after the rows.
constexpr uint64_t kCudaSlotStride = kCudaSlotBytes + kCudaSlotRows * sizeof(CudaRowFigures);
static_assert(kCudaSlotStride % 4096 == 0, "slots are pinned page by page");

// A tensor's factors on a GPU: this many of these, then the packed factors, at distances in float4 from the start.
struct CudaProduct {
  uint64_t left;   // [rows / 4][rank][4], zero-padded
  uint64_t right;  // [cols / 64][rank][64], zero-padded
  uint32_t rank;
  float scale;
};

enum class CudaRequestKind : uint32_t {
  kHello,  // first on lane 0; the answer's text names the GPUs
  kOpen,   // memory of `bytes` for the factors of `tensor`, on the lane's GPU
  kFill,   // the slot's first `bytes` go there, from `offset` on
  kClose,  // frees it
  kMerge,  // the slot's rows, in place
};

struct CudaRequest {
  CudaRequestKind kind;
  int32_t dtype;
  uint64_t tensor;
  uint64_t bytes;
  uint64_t offset;
  uint64_t rows;  // of the tensor
  uint64_t cols;
  uint64_t first_row;
  uint64_t row_count;
  uint32_t products;
  uint32_t figures;
};

struct CudaAnswer {
  int32_t status;  // portllm_status
  uint32_t protocol;
  uint32_t lanes;    // lanes [0, lanes) are served; lane l by GPU l mod `devices`
  uint32_t devices;
  char text[496];
};

}  // namespace portllm
