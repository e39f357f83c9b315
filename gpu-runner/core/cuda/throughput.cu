#include "throughput.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>

#include "../parallel.h"
#include "../portllm_core.h"
#include "../status.h"
#include "engine.h"

namespace portllm::cuda {
namespace {

constexpr uint32_t kRanks[] = {8, 16, 32, 40, 64, 128, 256};
constexpr uint32_t kGreatestRank = 256;
constexpr uint32_t kStreamLanes = 6;

struct FreeDevice {
  void operator()(void *memory) const { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;

class Measurement {
 public:
  Measurement(const Device &device, uint32_t rows, uint32_t cols, long repeats) : device_(device), rows_(rows), cols_(cols), repeats_(repeats) {
    device.select();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  ~Measurement() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Measurement(const Measurement &) = delete;

  void print() {
    const uint64_t bytes = static_cast<uint64_t>(rows_) * cols_ * 2;
    const DeviceMemory rows = reserve(bytes), copy = reserve(bytes);
    const double memcpy = 2 * bytes / seconds([&] { check(cudaMemcpyAsync(copy.get(), rows.get(), bytes, cudaMemcpyDeviceToDevice, stream_)); });
    int processors = 0, clock = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device_.index()));
    check(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, device_.index()));
    std::printf("{\"name\":\"%s\",\"processors\":%d,\"clockKilohertz\":%d,\"memcpyBytesPerSecond\":%.0f,\"resident\":[", device_.name().c_str(), processors, clock, memcpy);
    resident(static_cast<uint8_t *>(rows.get()), bytes);
    std::printf("],");
    bus(static_cast<uint8_t *>(rows.get()), static_cast<uint8_t *>(copy.get()), bytes);
    std::printf("}");
  }

 private:
  void check(cudaError_t error) const { device_.check(error, "measuring"); }

  DeviceMemory reserve(uint64_t bytes) const {
    void *memory = nullptr;
    check(cudaMalloc(&memory, bytes));
    DeviceMemory owner(memory);
    check(cudaMemset(memory, 0, bytes));
    return owner;
  }

  double median(std::vector<double> values) const {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  // On the GPU's own clock.
  double seconds(const std::function<void()> &enqueue) {
    std::vector<double> all;
    for (long i = 0; i <= repeats_; i++) {
      check(cudaEventRecord(begin_, stream_));
      enqueue();
      check(cudaEventRecord(end_, stream_));
      check(cudaEventSynchronize(end_));
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i > 0) all.push_back(milliseconds / 1e3);  // the first warms up
    }
    return median(all);
  }

  double wall_seconds(const std::function<void()> &work) const {
    std::vector<double> all;
    for (long i = 0; i <= repeats_; i++) {
      const auto start = std::chrono::steady_clock::now();
      work();
      if (i > 0) all.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return median(all);
  }

  // Zero factors compute as fast as others. Each rank uses a part of the same memory.
  DeviceMemory factors() {
    const uint64_t vectors = 1 + static_cast<uint64_t>(kGreatestRank) * (rows_ + cols_) / 4;
    return reserve(vectors * 16 + sizeof(Product));
  }

  void resident(uint8_t *rows, uint64_t bytes) {
    const DeviceMemory products = factors();
    const uint64_t panels = panels_of(cols_);
    const DeviceMemory partials = reserve(rows_ * panels * kFigures * kLanes * sizeof(float));
    const DeviceMemory counts = reserve(rows_ * sizeof(uint32_t)), figures = reserve(rows_ * sizeof(RowFigures));
    bool first = true;
    for (const uint32_t rank : kRanks) {
      const uint64_t left = (sizeof(Product) + 15) / 16;
      const Product product{left, left + static_cast<uint64_t>(rows_) * rank / 4, rank, 1.0f};
      check(cudaMemcpy(products.get(), &product, sizeof product, cudaMemcpyHostToDevice));
      for (const bool with_figures : {false, true}) {
        Band band{};
        band.rows = rows;
        band.pitch = cols_ * 2;
        band.end = rows_;
        band.cols = cols_;
        band.groups = rows_ / kGroupRows;
        band.products = static_cast<const Product *>(products.get());
        band.product_count = 1;
        if (with_figures) {
          band.partials = partials.get();
          band.non_finite = static_cast<uint32_t *>(counts.get());
        }
        const double taken = seconds([&] {
          check(merge_tiles(band, PORTLLM_BF16, stream_));
          if (with_figures) check(sum_figures(band, PORTLLM_BF16, static_cast<RowFigures *>(figures.get()), stream_));
        });
        std::printf("%s{\"rank\":%u,\"figures\":%s,\"bytesPerSecond\":%.0f,\"multiplyAddsPerSecond\":%.0f}", first ? "" : ",", rank,
                    with_figures ? "true" : "false", 2 * bytes / taken, static_cast<double>(bytes) / 2 * rank / taken);
        first = false;
      }
    }
  }

  void bus(uint8_t *in, uint8_t *out, uint64_t bytes) {
    void *mapped = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) fail(PORTLLM_MEMORY, "out of memory");
    auto *host = static_cast<uint8_t *>(mapped);
    check(cudaHostRegister(host, 2 * bytes, cudaHostRegisterPortable));
    cudaStream_t other;
    check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    const auto copy_in = [&] { check(cudaMemcpyAsync(in, host, bytes, cudaMemcpyHostToDevice, stream_)); };
    const auto copy_out = [&] { check(cudaMemcpyAsync(host + bytes, out, bytes, cudaMemcpyDeviceToHost, other)); };
    const double to_device = bytes / wall_seconds([&] { copy_in(), check(cudaStreamSynchronize(stream_)); });
    const double to_host = bytes / wall_seconds([&] { copy_out(), check(cudaStreamSynchronize(other)); });
    const double duplex = 2 * bytes / wall_seconds([&] { copy_in(), copy_out(), check(cudaStreamSynchronize(stream_)), check(cudaStreamSynchronize(other)); });
    check(cudaStreamDestroy(other));
    check(cudaHostUnregister(host));
    munmap(mapped, 2 * bytes);
    std::printf("\"toDeviceBytesPerSecond\":%.0f,\"toHostBytesPerSecond\":%.0f,\"duplexBytesPerSecond\":%.0f,\"streaming\":[", to_device, to_host, duplex);
    bool first = true;
    for (const uint32_t rank : {8u, 16u, 64u, 256u}) {
      std::printf("%s{\"rank\":%u,\"bytesPerSecond\":%.0f}", first ? "" : ",", rank, stream(rank, bytes));
      first = false;
    }
    std::printf("]");
  }

  // Bytes in and out per second through the engine's lanes, each slot being full from the start.
  double stream(uint32_t rank, uint64_t bytes) const {
    const uint64_t memory_bytes = kStreamLanes * kCudaSlotStride;
    void *mapped = mmap(nullptr, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) fail(PORTLLM_MEMORY, "out of memory");
    auto *slots = static_cast<uint8_t *>(mapped);
    Device device(device_.index(), device_.name());
    std::vector<std::unique_ptr<Lane>> lanes;
    for (uint32_t lane = 0; lane < kStreamLanes; lane++) lanes.push_back(std::make_unique<Lane>(device, slots + lane * kCudaSlotStride, merge_tiles));

    CudaRequest request{};
    request.dtype = PORTLLM_BF16;
    request.rows = request.row_count = std::min<uint64_t>({rows_, kCudaSlotRows, kCudaSlotBytes / (cols_ * 2)}) / kGroupRows * kGroupRows;
    request.cols = cols_;
    request.products = 1;
    request.figures = 1;
    const uint64_t left = (sizeof(Product) + 15) / 16;
    const Product product{left, left + request.rows * rank / 4, rank, 1.0f};
    const uint64_t factor_bytes = (product.right + static_cast<uint64_t>(rank) * cols_ / 4) * 16;
    lanes[0]->open(0, factor_bytes);
    for (uint64_t offset = 0; offset < factor_bytes; offset += kCudaSlotBytes) lanes[0]->fill(0, offset, std::min(kCudaSlotBytes, factor_bytes - offset));
    std::memcpy(slots, &product, sizeof product);
    lanes[0]->fill(0, 0, sizeof product);

    const uint64_t band_bytes = request.row_count * cols_ * 2, bands = std::max<uint64_t>(kStreamLanes, bytes / band_bytes) / kStreamLanes;
    const double taken = wall_seconds([&] {
      parallel(kStreamLanes, [&](uint64_t lane) {
        for (uint64_t band = 0; band < bands; band++) lanes[lane]->merge(request);
      });
    });
    lanes[0]->close(0);
    lanes.clear();
    munmap(mapped, memory_bytes);
    return 2 * bands * kStreamLanes * band_bytes / taken;
  }

  const Device &device_;
  uint32_t rows_, cols_;
  long repeats_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

int measure_throughput(long rows, long cols, long repeats) {
  char message[512];
  const int32_t status = guarded(message, sizeof message, [&] {
    if (rows < 64 || rows % 64 || rows > 1 << 20 || cols < 64 || cols % 64 || cols > 1 << 20 || repeats < 1 || repeats > 1000) {
      fail(PORTLLM_INVALID, "rows and columns must be multiples of 64, repeats from 1 to 1000");
    }
    const std::vector<std::unique_ptr<Device>> devices = find_devices();
    std::printf("{\"devices\":[");
    for (size_t i = 0; i < devices.size(); i++) {
      if (i) std::printf(",");
      Measurement(*devices[i], static_cast<uint32_t>(rows), static_cast<uint32_t>(cols), repeats).print();
    }
    std::printf("]}\n");
  });
  if (status == PORTLLM_OK) return 0;
  std::fprintf(stderr, "%s\n", message);
  return 1;
}

}  // namespace portllm::cuda
