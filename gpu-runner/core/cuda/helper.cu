// The CUDA helper process (cuda_protocol.h). `serve` answers the merge core on inherited file descriptors; `throughput`
// measures this machine's GPUs for test:gpu.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "../portllm_core.h"
#include "../status.h"
#include "engine.h"
#include "throughput.h"

namespace portllm::cuda {
namespace {

// At least two per direction and GPU would do for the copies; the rest covers the time that the core takes to fill a slot.
constexpr uint32_t kLanesPerDevice = 4;
constexpr uint32_t kFewestLanes = 8;

// False where the other side is gone.
bool read_all(int file, void *to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(file, static_cast<uint8_t *>(to) + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

bool write_all(int file, const void *from, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t put = write(file, static_cast<const uint8_t *>(from) + done, size - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    done += static_cast<size_t>(put);
  }
  return true;
}

CudaAnswer perform(Lane &lane, const CudaRequest &request) {
  CudaAnswer answer{};
  answer.status = guarded(answer.text, sizeof answer.text, [&] {
    switch (request.kind) {
      case CudaRequestKind::kOpen: return lane.open(request.tensor, request.bytes);
      case CudaRequestKind::kFill: return lane.fill(request.tensor, request.offset, request.bytes);
      case CudaRequestKind::kClose: return lane.close(request.tensor);
      case CudaRequestKind::kMerge: return lane.merge(request);
      default: fail(PORTLLM_INVALID, "unknown request");
    }
  });
  return answer;
}

// Until the core closes the socket, which ends the whole process: the core is gone, or starts another helper.
[[noreturn]] void serve_lane(Lane &lane, int file) {
  CudaRequest request;
  while (read_all(file, &request, sizeof request)) {
    const CudaAnswer answer = perform(lane, request);
    if (!write_all(file, &answer, sizeof answer)) break;
  }
  _exit(0);
}

Kernel chosen_kernel() {
  const char *name = std::getenv("PORTLLM_CUDA_KERNEL");
  if (!name || !*name || std::strcmp(name, "tiles") == 0) return merge_tiles;
  if (std::strcmp(name, "plain") == 0) return merge_plain;
  fail(PORTLLM_UNSUPPORTED, "PORTLLM_CUDA_KERNEL is \"%s\": expected tiles or plain", name);
}

// For test:gpu, which wants to see a GPU run out of memory: PORTLLM_CUDA_SPARE_MEBIBYTES is all that is left for factors.
void take_memory(const Device &device) {
  const char *spare = std::getenv("PORTLLM_CUDA_SPARE_MEBIBYTES");
  if (!spare) return;
  const uint64_t left = static_cast<uint64_t>(std::atol(spare)) << 20;
  device.select();
  // In pieces: free memory need not be in one.
  for (uint64_t piece = 1u << 30; piece >= 1u << 20; piece /= 2) {
    for (;;) {
      size_t available = 0, total = 0;
      device.check(cudaMemGetInfo(&available, &total), "asking for its free memory");
      void *memory;
      if (available < left + piece || cudaMalloc(&memory, piece) != cudaSuccess) break;
    }
  }
  cudaGetLastError();
}

int serve() {
  CudaRequest hello;
  if (!read_all(kCudaLaneFile, &hello, sizeof hello)) return 0;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::unique_ptr<Lane>> lanes;
  CudaAnswer answer{};
  answer.protocol = kCudaProtocol;
  std::string description;
  answer.status = guarded(answer.text, sizeof answer.text, [&] {
    const Kernel kernel = chosen_kernel();
    void *memory = mmap(nullptr, kCudaLanes * kCudaSlotStride, PROT_READ | PROT_WRITE, MAP_SHARED, kCudaMemoryFile, 0);
    if (memory == MAP_FAILED) fail(PORTLLM_MEMORY, "the shared memory cannot be mapped: %s", std::strerror(errno));
    devices = find_devices();
    // GPUs beyond the lanes would have nothing to do.
    if (devices.size() > kCudaLanes) devices.resize(kCudaLanes);
    const uint64_t count = std::min<uint64_t>(kCudaLanes, std::max<uint64_t>(kFewestLanes, kLanesPerDevice * devices.size()));
    for (uint64_t lane = 0; lane < count; lane++) {
      lanes.push_back(std::make_unique<Lane>(*devices[lane % devices.size()], static_cast<uint8_t *>(memory) + lane * kCudaSlotStride, kernel));
    }
    for (const auto &device : devices) take_memory(*device);
    description = describe(devices);
  });
  if (answer.status == PORTLLM_OK) std::snprintf(answer.text, sizeof answer.text, "%s", description.c_str());
  answer.lanes = static_cast<uint32_t>(lanes.size());
  answer.devices = static_cast<uint32_t>(devices.size());
  if (!write_all(kCudaLaneFile, &answer, sizeof answer) || answer.status != PORTLLM_OK) return 0;
  std::vector<std::thread> threads;
  for (uint32_t lane = 0; lane < lanes.size(); lane++) {
    threads.emplace_back(serve_lane, std::ref(*lanes[lane]), kCudaLaneFile + static_cast<int>(lane));
  }
  for (std::thread &thread : threads) thread.join();
  return 0;
}

}  // namespace
}  // namespace portllm::cuda

int main(int count, char **arguments) {
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "serve") return portllm::cuda::serve();
  if (command == "throughput" && count == 5) {
    return portllm::cuda::measure_throughput(std::atol(arguments[2]), std::atol(arguments[3]), std::atol(arguments[4]));
  }
  std::fprintf(stderr, "Usage: portllm-cuda serve (started by the merge core) | throughput ROWS COLS REPEATS (prints JSON)\n");
  return 2;
}
