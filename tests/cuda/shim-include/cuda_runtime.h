// CUDA on the CPU, for tests: a host compiler reads the .cu files with this header in place of CUDA's. The threads of a
// block are fibers that __syncthreads() joins, in an order of choice; streams are queues that run when they are waited for,
// as late as real ones may. It is stricter than a GPU: fresh memory is NaN, host memory of a copy must be pinned, threads
// that leave before a barrier are an error. It cannot show weak memory ordering, bank conflicts or what a driver does.
//
// Environment: CUDA_SHIM_DEVICES (default 1), CUDA_SHIM_MEMORY (bytes per device), CUDA_SHIM_ORDER (forward, reverse or a
// seed), CUDA_SHIM_FAIL_AT and CUDA_SHIM_ERROR (the n-th call that can fail gives that error), CUDA_SHIM_CRASH_AT.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
template <class T> T __ldcs(const T *from) { return *from; }
template <class T> void __stcs(T *to, T value) { *to = value; }
inline unsigned atomicAdd(unsigned *to, unsigned value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }

enum cudaError_t {
  cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDevice = 101, cudaErrorInvalidResourceHandle = 400, cudaErrorIllegalAddress = 700, cudaErrorUnknown = 999
};
enum { cudaHostRegisterPortable = 1, cudaStreamNonBlocking = 1, cudaDeviceScheduleBlockingSync = 4 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr { cudaDevAttrClockRate = 13, cudaDevAttrMultiProcessorCount = 16 };
struct cudaDeviceProp { char name[256]; int major, minor; };

namespace cuda_shim {

// Memory of the devices, pinned memory of the host, by address.
struct Region {
  size_t bytes;
  int device;  // -1: pinned
};
inline std::mutex mutex;
inline std::map<const char *, Region> regions;
inline std::map<int, size_t> used;
inline std::atomic<long> calls{0};
inline thread_local int device = 0;
inline thread_local cudaError_t last = cudaSuccess;

inline cudaError_t result(cudaError_t error) { return error ? last = error : error; }

// To be asked first by every call that can fail.
inline cudaError_t fault() {
  static const long fail_at = setting("CUDA_SHIM_FAIL_AT", 0), crash_at = setting("CUDA_SHIM_CRASH_AT", 0);
  const long call = ++calls;
  if (call == crash_at) std::abort();
  return call == fail_at ? static_cast<cudaError_t>(setting("CUDA_SHIM_ERROR", cudaErrorUnknown)) : cudaSuccess;
}

inline bool within(const void *memory, size_t bytes, int owner) {
  const std::lock_guard<std::mutex> lock(mutex);
  const char *at = static_cast<const char *>(memory);
  auto found = regions.upper_bound(at);
  if (found == regions.begin()) return false;
  --found;
  return found->second.device == owner && at + bytes <= found->first + found->second.bytes;
}

struct Stream {
  int device;
  std::mutex mutex;
  std::deque<std::function<void()>> queue;

  cudaError_t add(std::function<void()> work) {
    if (device != cuda_shim::device) return cudaErrorInvalidResourceHandle;
    const std::lock_guard<std::mutex> lock(mutex);
    queue.push_back(std::move(work));
    return cudaSuccess;
  }
  void drain() {
    for (;;) {
      std::function<void()> work;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (queue.empty()) return;
        work = std::move(queue.front());
        queue.pop_front();
      }
      work();
    }
  }
};

inline cudaError_t copy(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, cudaMemcpyKind kind, Stream *stream) {
  const size_t to_bytes = rows ? (rows - 1) * to_pitch + width : 0, from_bytes = rows ? (rows - 1) * from_pitch + width : 0;
  if (!within(to, to_bytes, kind == cudaMemcpyDeviceToHost ? -1 : stream->device)) return cudaErrorInvalidValue;
  if (!within(from, from_bytes, kind == cudaMemcpyHostToDevice ? -1 : stream->device)) return cudaErrorInvalidValue;
  return stream->add([=] {
    for (size_t row = 0; row < rows; row++) std::memcpy(static_cast<char *>(to) + row * to_pitch, static_cast<const char *>(from) + row * from_pitch, width);
  });
}

}  // namespace cuda_shim

using cudaStream_t = cuda_shim::Stream *;
using cudaEvent_t = std::chrono::steady_clock::time_point *;
struct cudaLaunchConfig_t { dim3 gridDim, blockDim; size_t dynamicSmemBytes; cudaStream_t stream; };

#define CUDA_SHIM_CALL(...) \
  if (const cudaError_t injected = cuda_shim::fault()) return cuda_shim::result(injected); \
  return cuda_shim::result([&]() -> cudaError_t { __VA_ARGS__ }())

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...), Arguments &&...arguments) {
  const cudaLaunchConfig_t c = *config;
  CUDA_SHIM_CALL(
    if (c.gridDim.x == 0 || c.gridDim.y == 0 || c.gridDim.y > 65535 || c.blockDim.x > 1024 || c.dynamicSmemBytes > 48 * 1024) return cudaErrorInvalidValue;
    return c.stream->add([=] {
      cuda_shim::Block block(c.blockDim.x, c.dynamicSmemBytes);
      gridDim = c.gridDim;
      blockDim = c.blockDim;
      for (unsigned y = 0; y < c.gridDim.y; y++) {
        for (unsigned x = 0; x < c.gridDim.x; x++) {
          blockIdx = dim3(x, y);
          block.run([&] { kernel(arguments...); });
        }
      }
    });
  );
}

inline cudaError_t cudaGetDeviceCount(int *count) {
  CUDA_SHIM_CALL(*count = static_cast<int>(cuda_shim::setting("CUDA_SHIM_DEVICES", 1)); return *count ? cudaSuccess : cudaErrorInsufficientDriver;);
}
inline cudaError_t cudaDriverGetVersion(int *version) { *version = cuda_shim::setting("CUDA_SHIM_DEVICES", 1) ? 13000 : 0; return cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) {
  CUDA_SHIM_CALL(if (device >= cuda_shim::setting("CUDA_SHIM_DEVICES", 1)) return cudaErrorInvalidDevice; cuda_shim::device = device; return cudaSuccess;);
}
inline cudaError_t cudaSetDeviceFlags(unsigned) { CUDA_SHIM_CALL(return cudaSuccess;); }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  CUDA_SHIM_CALL(*properties = {"CPU shim", static_cast<int>(cuda_shim::setting("CUDA_SHIM_MAJOR", 8)), 0}; return cudaSuccess;);
}
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) { CUDA_SHIM_CALL(*value = 1; return cudaSuccess;); }
inline cudaError_t cudaGetLastError() { return std::exchange(cuda_shim::last, cudaSuccess); }
inline const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the shim"; }
inline const char *cudaGetErrorName(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : error == cudaErrorInvalidValue ? "cudaErrorInvalidValue" : "cudaErrorOfTheShim"; }

inline size_t cuda_shim_limit() { return static_cast<size_t>(cuda_shim::setting("CUDA_SHIM_MEMORY", 1L << 32)); }
inline cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  CUDA_SHIM_CALL(const std::lock_guard<std::mutex> lock(cuda_shim::mutex); *total = cuda_shim_limit(); *available = *total - cuda_shim::used[cuda_shim::device]; return cudaSuccess;);
}
inline cudaError_t cudaMalloc(void **memory, size_t bytes) {
  CUDA_SHIM_CALL(
    const std::lock_guard<std::mutex> lock(cuda_shim::mutex);
    if (cuda_shim::used[cuda_shim::device] + bytes > cuda_shim_limit()) return cudaErrorMemoryAllocation;
    *memory = nullptr;
    if (posix_memalign(memory, 256, bytes)) return cudaErrorMemoryAllocation;
    std::memset(*memory, 0xff, bytes);
    cuda_shim::used[cuda_shim::device] += bytes;
    cuda_shim::regions[static_cast<char *>(*memory)] = {bytes, cuda_shim::device};
    return cudaSuccess;
  );
}
inline cudaError_t cudaFree(void *memory) {
  CUDA_SHIM_CALL(
    const std::lock_guard<std::mutex> lock(cuda_shim::mutex);
    if (!memory) return cudaSuccess;
    const auto found = cuda_shim::regions.find(static_cast<char *>(memory));
    if (found == cuda_shim::regions.end() || found->second.device < 0) return cudaErrorInvalidValue;
    cuda_shim::used[found->second.device] -= found->second.bytes;
    cuda_shim::regions.erase(found);
    std::free(memory);
    return cudaSuccess;
  );
}
inline cudaError_t cudaMallocAsync(void **memory, size_t bytes, cudaStream_t) { return cudaMalloc(memory, bytes); }
inline cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream) { CUDA_SHIM_CALL(return stream->add([=] { cudaFree(memory); });); }
inline cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned) {
  CUDA_SHIM_CALL(const std::lock_guard<std::mutex> lock(cuda_shim::mutex); cuda_shim::regions[static_cast<char *>(memory)] = {bytes, -1}; return cudaSuccess;);
}
inline cudaError_t cudaHostUnregister(void *memory) {
  CUDA_SHIM_CALL(const std::lock_guard<std::mutex> lock(cuda_shim::mutex); return cuda_shim::regions.erase(static_cast<char *>(memory)) ? cudaSuccess : cudaErrorInvalidValue;);
}
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  CUDA_SHIM_CALL(return cuda_shim::copy(to, bytes, from, bytes, bytes, 1, kind, stream););
}
inline cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  CUDA_SHIM_CALL(if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue; return cuda_shim::copy(to, to_pitch, from, from_pitch, width, rows, kind, stream););
}
inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind) { CUDA_SHIM_CALL(std::memcpy(to, from, bytes); return cudaSuccess;); }
inline cudaError_t cudaMemset(void *to, int value, size_t bytes) { CUDA_SHIM_CALL(std::memset(to, value, bytes); return cudaSuccess;); }
inline cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t rows, cudaStream_t stream) {
  CUDA_SHIM_CALL(
    if (!cuda_shim::within(to, rows ? (rows - 1) * pitch + width : 0, stream->device)) return cudaErrorInvalidValue;
    return stream->add([=] { for (size_t row = 0; row < rows; row++) std::memset(static_cast<char *>(to) + row * pitch, value, width); });
  );
}
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) { return cudaMemset2DAsync(to, bytes, value, bytes, 1, stream); }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  CUDA_SHIM_CALL(*stream = new cuda_shim::Stream{cuda_shim::device, {}, {}}; return cudaSuccess;);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  // Injected failures come after the work, which a real one may have done too.
  stream->drain();
  CUDA_SHIM_CALL(return cudaSuccess;);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { stream->drain(); delete stream; CUDA_SHIM_CALL(return cudaSuccess;); }
inline cudaError_t cudaEventCreate(cudaEvent_t *event) { CUDA_SHIM_CALL(*event = new std::chrono::steady_clock::time_point; return cudaSuccess;); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { delete event; CUDA_SHIM_CALL(return cudaSuccess;); }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { stream->add([=] { *event = std::chrono::steady_clock::now(); }); stream->drain(); CUDA_SHIM_CALL(return cudaSuccess;); }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { CUDA_SHIM_CALL(return cudaSuccess;); }
inline cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  CUDA_SHIM_CALL(*milliseconds = std::chrono::duration<float, std::milli>(*end - *begin).count(); return cudaSuccess;);
}
