#include "engine.h"

#include <algorithm>

#include "../portllm_core.h"
#include "../status.h"

namespace portllm::cuda {
namespace {

// sm_80: the oldest that the kernels are compiled for.
constexpr int kOldestMajor = 8;

// A band may begin inside a group of four rows, and rows may be padded to whole panels and to the pitch.
constexpr uint64_t kRows = kCudaSlotRows + kGroupRows;
constexpr uint64_t kRowsBytes = kCudaSlotBytes + kRows * (kPanelCols * 8 + kPitchBytes);
// Panels of all rows: no more than elements of one byte / 64, and one for each row's end. (Those of F64 are an eighth as many.)
constexpr uint64_t kPanels = kCudaSlotBytes / kPanelCols + kRows;
constexpr uint64_t kPartialsBytes = kPanels * kFigures * kLanes * sizeof(float);

// 0 where the kernels do not know the dtype.
uint64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case PORTLLM_F64: return 8;
    case PORTLLM_F32: return 4;
    case PORTLLM_F16: case PORTLLM_BF16: return 2;
    case PORTLLM_F8_E4M3: case PORTLLM_F8_E5M2: return 1;
    default: return 0;
  }
}

uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

void Device::check(cudaError_t error, const char *what) const {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that does not break the context must not show up again in the next call
  fail(error == cudaErrorMemoryAllocation ? PORTLLM_MEMORY : PORTLLM_DEVICE, "GPU %d (%s): %s: %s (%s)", index_, name_.c_str(), what,
       cudaGetErrorString(error), cudaGetErrorName(error));
}

void Device::open(uint64_t tensor, uint64_t bytes, cudaStream_t stream) {
  void *memory = nullptr;
  const cudaError_t error = cudaMallocAsync(&memory, bytes, stream);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t available = 0, total = 0;
    check(cudaMemGetInfo(&available, &total), "asking for its free memory");
    fail(PORTLLM_MEMORY, "GPU %d (%s) has no room for the factors: they take %.1f MiB, and %.1f of its %.1f MiB are free", index_,
         name_.c_str(), static_cast<double>(bytes) / 0x1p20, static_cast<double>(available) / 0x1p20, static_cast<double>(total) / 0x1p20);
  }
  check(error, "reserving memory for factors");
  const std::lock_guard<std::mutex> lock(mutex_);
  tensors_[tensor] = {static_cast<uint8_t *>(memory), bytes};
}

void Device::close(uint64_t tensor, cudaStream_t stream) {
  Factors factors{};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end()) return;
    factors = found->second;
    tensors_.erase(found);
  }
  check(cudaFreeAsync(factors.memory, stream), "freeing factors");
}

uint8_t *Device::factors(uint64_t tensor, uint64_t offset, uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) fail(PORTLLM_INVALID, "GPU %d does not have the factors of tensor %llu", index_, static_cast<unsigned long long>(tensor));
  if (offset > found->second.bytes || bytes > found->second.bytes - offset) fail(PORTLLM_INVALID, "a range lies outside the tensor's factors");
  return found->second.memory + offset;
}

std::vector<std::unique_ptr<Device>> find_devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const char *reason = error == cudaSuccess ? "the driver shows no GPU" : cudaGetErrorString(error);
    if (driver == 0) fail(PORTLLM_UNSUPPORTED, "no GPU: this machine has no NVIDIA driver (CUDA error %d: %s)", error, reason);
    fail(PORTLLM_UNSUPPORTED, "no GPU: %s (CUDA error %d; the driver is for CUDA %d.%d, the helper needs %d.%d)", reason, error,
         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  }
  std::vector<std::unique_ptr<Device>> devices;
  std::string left_out;
  for (int index = 0; index < count; index++) {
    cudaDeviceProp properties;
    auto device = std::make_unique<Device>(index, "?");
    device->check(cudaGetDeviceProperties(&properties, index), "asking for its properties");
    const std::string name = std::string(properties.name) + " (sm_" + std::to_string(properties.major * 10 + properties.minor) + ")";
    device = std::make_unique<Device>(index, name);
    if (properties.major < kOldestMajor) {
      left_out += (left_out.empty() ? "" : ", ") + name;
      continue;
    }
    device->select();
    // A lane's thread sleeps while its GPU works, and leaves the processor to those that read and write.
    device->check(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync), "setting how to wait for it");
    devices.push_back(std::move(device));
  }
  if (devices.empty()) fail(PORTLLM_UNSUPPORTED, "no GPU: sm_80 or newer is needed, and here are only %s", left_out.c_str());
  return devices;
}

std::string describe(const std::vector<std::unique_ptr<Device>> &devices) {
  std::string text = devices.size() == 1 ? "1 GPU: " : std::to_string(devices.size()) + " GPUs: ";
  for (size_t i = 0; i < devices.size(); i++) text += (i ? ", " : "") + devices[i]->name();
  return text;
}

Lane::Lane(Device &device, uint8_t *slot, Kernel kernel) : device_(device), slot_(slot), kernel_(kernel) {
  device.select();
  device.check(cudaHostRegister(slot, kCudaSlotStride, cudaHostRegisterPortable), "pinning a slot of memory");
  pinned_ = true;
  device.check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  device.check(cudaMalloc(reinterpret_cast<void **>(&rows_), kRowsBytes), "reserving memory for rows");
  device.check(cudaMalloc(&partials_, kPartialsBytes), "reserving memory for figures");
  device.check(cudaMalloc(reinterpret_cast<void **>(&non_finite_), kRows * sizeof(uint32_t)), "reserving memory for figures");
  device.check(cudaMalloc(reinterpret_cast<void **>(&figures_), kRows * sizeof(RowFigures)), "reserving memory for figures");
}

// Errors of these calls have no one to go to: the process ends.
Lane::~Lane() {
  if (cudaSetDevice(device_.index()) != cudaSuccess) return;
  if (stream_) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  cudaFree(figures_);
  cudaFree(non_finite_);
  cudaFree(partials_);
  cudaFree(rows_);
  if (pinned_) cudaHostUnregister(slot_);
}

// Waits in any case: after a failure the GPU must not go on writing into a slot that is given away.
template <class Work>
void Lane::run(Work work) {
  device_.select();
  try {
    work();
  } catch (...) {
    cudaStreamSynchronize(stream_);
    throw;
  }
  device_.check(cudaStreamSynchronize(stream_), "waiting for it");
}

void Lane::open(uint64_t tensor, uint64_t bytes) {
  run([&] { device_.open(tensor, bytes, stream_); });
}

void Lane::fill(uint64_t tensor, uint64_t offset, uint64_t bytes) {
  if (bytes > kCudaSlotBytes) fail(PORTLLM_INVALID, "more bytes than the slot has");
  uint8_t *to = device_.factors(tensor, offset, bytes);
  run([&] { device_.check(cudaMemcpyAsync(to, slot_, bytes, cudaMemcpyHostToDevice, stream_), "copying factors in"); });
}

void Lane::close(uint64_t tensor) {
  run([&] { device_.close(tensor, stream_); });
}

void Lane::merge(const CudaRequest &request) {
  run([&] { enqueue_merge(request); });
}

void Lane::enqueue_merge(const CudaRequest &request) {
  const uint64_t element = element_bytes(request.dtype);
  if (!element) fail(PORTLLM_INVALID, "dtype %d cannot be merged", request.dtype);
  if (request.cols == 0 || request.cols > kCudaSlotBytes / element) fail(PORTLLM_INVALID, "a row does not fit the slot");
  const uint64_t row_bytes = request.cols * element;
  if (request.row_count == 0 || request.row_count > std::min(kCudaSlotRows, kCudaSlotBytes / row_bytes)) fail(PORTLLM_INVALID, "the rows do not fit the slot");

  Band band{};
  band.pitch = rounded_up(rounded_up(request.cols, kPanelCols) * element, kPitchBytes);
  band.begin = static_cast<uint32_t>(request.first_row % kGroupRows);
  band.end = static_cast<uint32_t>(band.begin + request.row_count);
  band.cols = static_cast<uint32_t>(request.cols);
  band.first_group = request.first_row / kGroupRows;
  band.groups = rounded_up(request.rows, kGroupRows) / kGroupRows;
  band.products = reinterpret_cast<const Product *>(device_.factors(request.tensor, 0, request.products * sizeof(Product)));
  band.product_count = request.products;
  band.rows = rows_;
  if (request.figures) {
    band.partials = partials_;
    band.non_finite = non_finite_;
  }

  // Rows whose length is no multiple of 128 bytes are spread out, so that every access of the kernels is aligned; their
  // padding is zero, and adds nothing to the figures.
  uint8_t *first = rows_ + band.begin * band.pitch;
  const bool packed = band.pitch == row_bytes;
  const uint64_t bytes = request.row_count * row_bytes;
  if (packed) {
    device_.check(cudaMemcpyAsync(first, slot_, bytes, cudaMemcpyHostToDevice, stream_), "copying rows in");
  } else {
    device_.check(cudaMemset2DAsync(first + row_bytes, band.pitch, 0, band.pitch - row_bytes, request.row_count, stream_), "clearing the rows' ends");
    device_.check(cudaMemcpy2DAsync(first, band.pitch, slot_, row_bytes, row_bytes, request.row_count, cudaMemcpyHostToDevice, stream_), "copying rows in");
  }
  if (request.figures) {
    device_.check(cudaMemsetAsync(non_finite_ + band.begin, 0, request.row_count * sizeof(uint32_t), stream_), "clearing counts");
  }
  device_.check(kernel_(band, request.dtype, stream_), "merging");
  if (request.figures) {
    device_.check(sum_figures(band, request.dtype, figures_, stream_), "summing figures");
    device_.check(cudaMemcpyAsync(slot_ + kCudaSlotBytes, figures_, request.row_count * sizeof(RowFigures), cudaMemcpyDeviceToHost, stream_), "copying figures out");
  }
  if (packed) {
    device_.check(cudaMemcpyAsync(slot_, first, bytes, cudaMemcpyDeviceToHost, stream_), "copying rows out");
  } else {
    device_.check(cudaMemcpy2DAsync(slot_, row_bytes, first, band.pitch, row_bytes, request.row_count, cudaMemcpyDeviceToHost, stream_), "copying rows out");
  }
}

}  // namespace portllm::cuda
