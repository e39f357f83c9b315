#include "tensor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "float_formats.h"
#include "parallel.h"
#include "status.h"

namespace portllm {
namespace {

// Where a merge's output is larger than this it will leave the caches anyway: store around them.
constexpr uint64_t kStreamBytes = 16u << 20;
// Below this much work per thread, starting it costs more than it saves.
constexpr uint64_t kThreadMultiplyAdds = 2u << 20;

uint64_t checked_product(uint64_t a, uint64_t b, const char *what) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > (UINT64_MAX >> 2)) {
    fail(PORTLLM_INVALID, "%s is too large to address", what);
  }
  return product;
}

uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

AlignedFloats allocate(uint64_t count) {
  const uint64_t bytes = rounded_up(checked_product(count, sizeof(float), "a packed factor"), 64);
  void *memory = nullptr;
  if (posix_memalign(&memory, 64, bytes) != 0) {
    fail(PORTLLM_MEMORY, "out of memory: a packed factor needs %llu bytes", static_cast<unsigned long long>(bytes));
  }
  std::memset(memory, 0, bytes);
  return AlignedFloats(static_cast<float *>(memory));
}

struct StoredFactor {
  const uint8_t *bytes;
  int32_t dtype;
  const char *name;

  // Element `index` as float32, exactly; refuses NaN and infinity.
  float at(uint64_t index) const {
    float value;
    if (dtype == PORTLLM_F32) {
      std::memcpy(&value, bytes + 4 * index, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, bytes + 2 * index, 2);
      value = dtype == PORTLLM_BF16 ? from_bf16(half) : from_f16(half);
    }
    if (!std::isfinite(value)) {
      fail(PORTLLM_NONFINITE, "the %s factor holds a NaN or an infinity at element %llu", name,
           static_cast<unsigned long long>(index));
    }
    return value;
  }
};

// Checks a stored factor and copies it into tiles: [outer / width][rank][width], `outer` being rows or columns.
AlignedFloats pack(const StoredFactor &factor, uint64_t size, uint64_t outer, uint64_t rank,
                   bool rank_first, uint64_t width) {
  if (!factor.bytes) fail(PORTLLM_INVALID, "the %s factor is null", factor.name);
  if (factor.dtype == PORTLLM_F64) {
    fail(PORTLLM_INVALID, "the %s factor is F64, which float32 does not hold exactly: store it as F32, F16 or BF16", factor.name);
  }
  if (factor.dtype < PORTLLM_F32 || factor.dtype > PORTLLM_BF16) {
    fail(PORTLLM_INVALID, "the %s factor has dtype %d: only F32, F16 and BF16 can be merged", factor.name, factor.dtype);
  }
  const uint64_t elements = checked_product(outer, rank, "a factor");
  const uint64_t expected = checked_product(elements, element_bytes(factor.dtype), "a factor");
  if (size != expected) {
    fail(PORTLLM_INVALID, "the %s factor has %llu bytes where %llu x %llu elements need %llu", factor.name,
         static_cast<unsigned long long>(size), static_cast<unsigned long long>(outer),
         static_cast<unsigned long long>(rank), static_cast<unsigned long long>(expected));
  }
  AlignedFloats packed = allocate(checked_product(rounded_up(outer, width), rank, "a packed factor"));
  float *to = packed.get();
  if (rank_first) {
    for (uint64_t k = 0; k < rank; k++) {
      for (uint64_t o = 0; o < outer; o++) {
        to[((o / width) * rank + k) * width + o % width] = factor.at(k * outer + o);
      }
    }
  } else {
    for (uint64_t o = 0; o < outer; o++) {
      for (uint64_t k = 0; k < rank; k++) {
        to[((o / width) * rank + k) * width + o % width] = factor.at(o * rank + k);
      }
    }
  }
  return packed;
}

bool path_supported(int32_t path) {
  if (path == PORTLLM_SCALAR) return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (path == PORTLLM_AVX2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  }
  if (path == PORTLLM_AVX512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (path == PORTLLM_AVX512_BF16) return path_supported(PORTLLM_AVX512) && __builtin_cpu_supports("avx512bf16");
#endif
  return false;
}

}  // namespace

void FreeMemory::operator()(float *memory) const { std::free(memory); }

const Path &path_of(int32_t path) {
  if (!path_supported(path)) {
    fail(PORTLLM_UNSUPPORTED, "path %d is unknown, or this processor cannot run it", path);
  }
#if defined(__x86_64__)
  if (path == PORTLLM_AVX2) return kAvx2Path;
  if (path == PORTLLM_AVX512) return kAvx512Path;
  if (path == PORTLLM_AVX512_BF16) return kAvx512Bf16Path;
#endif
  return kScalarPath;
}

uint64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case PORTLLM_F32: return 4;
    case PORTLLM_F16: case PORTLLM_BF16: return 2;
    case PORTLLM_F64: return 8;
    case PORTLLM_F8_E4M3: case PORTLLM_F8_E5M2: case PORTLLM_F8_E8M0: return 1;
    default: return 0;
  }
}

}  // namespace portllm

using namespace portllm;

void portllm_tensor::keep_figures() {
  const std::lock_guard<std::mutex> lock(figures_mutex);
  if (!figures) figures.reset(new RowFigures[rows]());
}

extern "C" {

int32_t portllm_path_supported(int32_t path) { return path_supported(path) ? 1 : 0; }

const char *portllm_version(void) { return "1 lora-f32/1"; }

int32_t portllm_tensor_create(int32_t dtype, uint64_t rows, uint64_t cols, portllm_tensor **tensor,
                              char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!tensor) fail(PORTLLM_INVALID, "the place for the tensor is null");
    *tensor = nullptr;
    if (dtype < PORTLLM_F32 || dtype > PORTLLM_BF16) {
      fail(PORTLLM_INVALID, "dtype %d cannot be merged: only F32, F16 and BF16 can", dtype);
    }
    if (rows == 0 || cols == 0) fail(PORTLLM_INVALID, "the tensor has no elements");
    checked_product(checked_product(rows, cols, "the tensor"), element_bytes(dtype), "the tensor");
    auto made = std::make_unique<portllm_tensor>();
    made->dtype = dtype;
    made->rows = rows;
    made->cols = cols;
    made->row_bytes = cols * element_bytes(dtype);
    *tensor = made.release();
  });
}

int32_t portllm_tensor_add(portllm_tensor *tensor, const void *left, uint64_t left_bytes,
                           int32_t left_dtype, int32_t left_transposed, const void *right,
                           uint64_t right_bytes, int32_t right_dtype, int32_t right_transposed,
                           uint64_t rank, float scale, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!tensor) fail(PORTLLM_INVALID, "the tensor is null");
    if (tensor->sealed) fail(PORTLLM_INVALID, "a merge of this tensor has begun: no more can be added");
    if (rank == 0) fail(PORTLLM_INVALID, "the rank is 0");
    if (!std::isfinite(scale)) fail(PORTLLM_NONFINITE, "the scale is not a finite float32");
    const StoredFactor stored_left{static_cast<const uint8_t *>(left), left_dtype, "left"};
    const StoredFactor stored_right{static_cast<const uint8_t *>(right), right_dtype, "right"};
    AlignedFloats packed_left = pack(stored_left, left_bytes, tensor->rows, rank, left_transposed != 0, kTileRows);
    AlignedFloats packed_right = pack(stored_right, right_bytes, tensor->cols, rank, right_transposed == 0, kTileCols);
    tensor->memory.reserve(tensor->memory.size() + 2);
    tensor->products.reserve(tensor->products.size() + 1);
    tensor->products.push_back({packed_left.get(), packed_right.get(), rank, scale});
    tensor->memory.push_back(std::move(packed_left));
    tensor->memory.push_back(std::move(packed_right));
    tensor->total_rank += rank;
  });
}

int32_t portllm_tensor_merge(portllm_tensor *tensor, int32_t path, uint32_t threads, int32_t figures,
                             uint64_t first_row, uint64_t row_count, const void *w, uint64_t w_bytes,
                             void *out, uint64_t out_bytes, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!tensor) fail(PORTLLM_INVALID, "the tensor is null");
    if (!w || !out) fail(PORTLLM_INVALID, "the rows' memory is null");
    if (threads == 0) fail(PORTLLM_INVALID, "at least one thread is needed");
    if (tensor->products.empty()) fail(PORTLLM_INVALID, "nothing is added to the tensor");
    if (row_count == 0 || first_row > tensor->rows || row_count > tensor->rows - first_row) {
      fail(PORTLLM_INVALID, "rows %llu..+%llu are outside the tensor's %llu rows", static_cast<unsigned long long>(first_row),
           static_cast<unsigned long long>(row_count), static_cast<unsigned long long>(tensor->rows));
    }
    const uint64_t expected = row_count * tensor->row_bytes;
    if (w_bytes != expected || out_bytes != expected) {
      fail(PORTLLM_INVALID, "%llu rows take %llu bytes, but W has %llu and the output %llu", static_cast<unsigned long long>(row_count),
           static_cast<unsigned long long>(expected), static_cast<unsigned long long>(w_bytes), static_cast<unsigned long long>(out_bytes));
    }
    const auto *from = static_cast<const uint8_t *>(w);
    auto *to = static_cast<uint8_t *>(out);
    if (from != to && from < to + expected && to < from + expected) {
      fail(PORTLLM_INVALID, "the output overlaps W without being the same memory");
    }
    const Path &kernels = path_of(path);
    tensor->sealed = true;
    if (figures) tensor->keep_figures();

    // Whole tiles per thread; a boundary inside a group of four rows would compute that group twice.
    const uint64_t work = row_count * tensor->cols * (tensor->total_rank + 8);
    const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(threads, work / kThreadMultiplyAdds));
    const uint64_t share = rounded_up((row_count + wanted - 1) / wanted, kTileRows);
    const bool stream = from != to && expected >= kStreamBytes;
    std::vector<uint64_t> bounds{first_row};
    while (bounds.back() < first_row + row_count) {
      const uint64_t next = (bounds.back() / kTileRows) * kTileRows + share;
      bounds.push_back(std::min(first_row + row_count, next));
    }
    parallel(bounds.size() - 1, [&](uint64_t band) {
      const uint64_t begin = bounds[band], offset = (begin - first_row) * tensor->row_bytes;
      tensor->merge_band(kernels, figures != 0, stream, begin, bounds[band + 1] - begin, from + offset, to + offset);
    });
  });
}

int32_t portllm_tensor_figures(const portllm_tensor *tensor, portllm_figures *figures, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!tensor || !figures) fail(PORTLLM_INVALID, "an argument is null");
    double patch = 0, realised = 0, residual = 0;
    uint64_t count = 0;
    if (tensor->figures) {
      for (uint64_t i = 0; i < tensor->rows; i++) {
        patch += tensor->figures[i].patch;
        realised += tensor->figures[i].realised;
        residual += tensor->figures[i].residual;
        count += tensor->figures[i].non_finite;
      }
    }
    *figures = {std::sqrt(patch), std::sqrt(realised), std::sqrt(residual), static_cast<double>(count)};
  });
}

void portllm_tensor_free(portllm_tensor *tensor) { delete tensor; }

}  // extern "C"
