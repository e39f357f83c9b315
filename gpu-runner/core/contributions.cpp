// Adding contributions to a tensor, and every check on them.
#include <cmath>
#include <cstring>

#include "handles.h"
#include "packing.h"
#include "status.h"
#include "tensor.h"

namespace portllm {
namespace {

// Element `index` as float32, exactly; refuses NaN and infinity.
float finite_element(const portllm_matrix &stored, const char *name, uint64_t index) {
  float value;
  read_elements(stored.dtype, static_cast<const uint8_t *>(stored.bytes) + index * element_bytes(stored.dtype), 1, &value);
  if (!std::isfinite(value)) {
    fail(PORTLLM_NONFINITE, "the %s holds a NaN or an infinity at element %llu", name, static_cast<unsigned long long>(index));
  }
  return value;
}

// Refuses a matrix that is not float32 or narrower, or does not lie within its bytes.
void check_stored(const portllm_matrix &stored, const char *name, uint64_t rows, uint64_t cols) {
  if (!stored.bytes) fail(PORTLLM_INVALID, "the %s is null", name);
  if (stored.dtype == PORTLLM_F64) {
    fail(PORTLLM_INVALID, "the %s is F64, which float32 does not hold exactly: store it as F32, F16 or BF16", name);
  }
  if (stored.dtype < PORTLLM_F32 || stored.dtype > PORTLLM_BF16) {
    fail(PORTLLM_INVALID, "the %s has dtype %d: only F32, F16 and BF16 can be merged", name, stored.dtype);
  }
  const uint64_t element = element_bytes(stored.dtype);
  if (stored.size % element) {
    fail(PORTLLM_INVALID, "the %s has %llu bytes, which is no whole number of %llu-byte elements", name,
         static_cast<unsigned long long>(stored.size), static_cast<unsigned long long>(element));
  }
  uint64_t down, across, last;
  if (__builtin_mul_overflow(rows - 1, stored.row_stride, &down) || __builtin_mul_overflow(cols - 1, stored.col_stride, &across) ||
      __builtin_add_overflow(down, across, &last) || __builtin_add_overflow(last, stored.offset, &last)) {
    fail(PORTLLM_INVALID, "the strides of the %s are too large to address", name);
  }
  if (last >= stored.size / element) {
    fail(PORTLLM_INVALID, "the %s has %llu elements, but %llu x %llu from %llu on with strides %llu and %llu reach to element %llu", name,
         static_cast<unsigned long long>(stored.size / element), static_cast<unsigned long long>(rows),
         static_cast<unsigned long long>(cols), static_cast<unsigned long long>(stored.offset),
         static_cast<unsigned long long>(stored.row_stride), static_cast<unsigned long long>(stored.col_stride),
         static_cast<unsigned long long>(last));
  }
  // Strides of 0 would make a few bytes stand for any number of elements, each of which is packed.
  if (rows > stored.size / element / cols) {
    fail(PORTLLM_INVALID, "the %s has %llu elements, but %llu x %llu are needed", name, static_cast<unsigned long long>(stored.size / element),
         static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols));
  }
}

// The tensor, and nobody else adding to it; refuses where nothing can be added.
class OpenTensor {
 public:
  explicit OpenTensor(portllm_tensor *handle) : tensor_(Handles<portllm_tensor>::get(handle, "tensor")), adding_(tensor_->adding) {
    if (tensor_->sealed) fail(PORTLLM_INVALID, "a merge of this tensor has begun: no more can be added");
    for (const Step &step : tensor_->steps) {
      if (step.kind == Step::kReplace) fail(PORTLLM_INVALID, "the tensor is replaced: nothing can be added to it");
    }
  }
  portllm_tensor &operator*() const { return *tensor_; }

 private:
  const std::shared_ptr<portllm_tensor> tensor_;
  const std::lock_guard<std::mutex> adding_;
};

// Checks and packs `scale * left @ right`; on failure the tensor is as it was.
void add_packed(portllm_tensor &tensor, const portllm_matrix *left, const portllm_matrix *right, uint64_t rank, float scale) {
  if (!left || !right) fail(PORTLLM_INVALID, "a factor is null");
  if (rank == 0) fail(PORTLLM_INVALID, "the rank is 0");
  if (!std::isfinite(scale)) fail(PORTLLM_NONFINITE, "the scale is not a finite float32");
  check_stored(*left, "left factor", tensor.rows, rank);
  check_stored(*right, "right factor", rank, tensor.cols);
  const FloatMode mode;
  AlignedFloats packed_left = pack(*left, "left factor", tensor.rows, left->row_stride, rank, left->col_stride, kTileRows);
  AlignedFloats packed_right = pack(*right, "right factor", tensor.cols, right->col_stride, rank, right->row_stride, kTileCols);
  tensor.memory.reserve(tensor.memory.size() + 2);
  tensor.products.reserve(tensor.products.size() + 1);
  tensor.steps.reserve(tensor.steps.size() + 1);
  tensor.products.push_back({packed_left.get(), packed_right.get(), rank, scale});
  tensor.memory.push_back(std::move(packed_left));
  tensor.memory.push_back(std::move(packed_right));
  tensor.total_rank += rank;
}

void check_operand(int32_t dtype, const char *name) {
  if (!mergeable(dtype)) fail(PORTLLM_INVALID, "the %s has dtype %d: only F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 can be merged", name, dtype);
}

}  // namespace

}  // namespace portllm

using namespace portllm;

extern "C" {

int32_t portllm_tensor_add_product(portllm_tensor *tensor, const portllm_matrix *left, const portllm_matrix *right, uint64_t rank,
                                   float scale, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenTensor opened(tensor);
    portllm_tensor &open = *opened;
    add_packed(open, left, right, rank, scale);
    if (!open.steps.empty() && open.steps.back().kind == Step::kProducts) {
      open.steps.back().product_count++;
    } else {
      Step step(Step::kProducts);
      step.first_product = open.products.size() - 1;
      step.product_count = 1;
      open.steps.push_back(std::move(step));
    }
  });
}

int32_t portllm_tensor_add_dora(portllm_tensor *tensor, const portllm_matrix *left, const portllm_matrix *right, uint64_t rank, float scale,
                                const void *magnitude, uint64_t magnitude_bytes, int32_t magnitude_dtype, int32_t axis, double weight,
                                char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenTensor opened(tensor);
    portllm_tensor &open = *opened;
    if (axis != PORTLLM_ROWS && axis != PORTLLM_COLUMNS) fail(PORTLLM_INVALID, "the axis is %d: rows (0) or columns (1) is needed", axis);
    if (!std::isfinite(weight)) fail(PORTLLM_NONFINITE, "the weight is not finite");
    Step step(Step::kDora);
    step.by_columns = axis == PORTLLM_COLUMNS;
    step.weight = weight;
    const uint64_t values = step.by_columns ? open.cols : open.rows;
    const portllm_matrix stored{magnitude, magnitude_bytes, 0, 0, 1, magnitude_dtype};
    check_stored(stored, "magnitude", 1, values);
    if (magnitude_bytes / element_bytes(magnitude_dtype) != values) {
      fail(PORTLLM_INVALID, "the magnitude has %llu values, but there are %llu %s", static_cast<unsigned long long>(magnitude_bytes / element_bytes(magnitude_dtype)),
           static_cast<unsigned long long>(values), step.by_columns ? "columns" : "rows");
    }
    step.magnitude.resize(values);
    for (uint64_t i = 0; i < values; i++) step.magnitude[i] = finite_element(stored, "magnitude", i);
    if (step.by_columns) {
      step.column_squares.resize(rounded_up(values, kTileCols));
      step.column_factors.resize(rounded_up(values, kTileCols));
    }
    step.first_product = open.products.size();
    step.product_count = 1;
    add_packed(open, left, right, rank, scale);
    open.steps.push_back(std::move(step));
  });
}

int32_t portllm_tensor_add_dense(portllm_tensor *tensor, int32_t value_dtype, int32_t base_dtype, double scale, char *message,
                                 size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenTensor opened(tensor);
    portllm_tensor &open = *opened;
    check_operand(value_dtype, "value");
    if (base_dtype != -1) check_operand(base_dtype, "base");
    if (!std::isfinite(scale)) fail(PORTLLM_NONFINITE, "the scale is not finite");
    Step step(Step::kDense);
    step.scale = scale;
    step.value_dtype = value_dtype;
    step.base_dtype = base_dtype;
    step.first_operand = open.operand_dtypes.size();
    open.operand_dtypes.reserve(open.operand_dtypes.size() + 2);
    open.steps.push_back(std::move(step));
    open.operand_dtypes.push_back(value_dtype);
    if (base_dtype != -1) open.operand_dtypes.push_back(base_dtype);
  });
}

int32_t portllm_tensor_add_replace(portllm_tensor *tensor, int32_t value_dtype, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenTensor opened(tensor);
    portllm_tensor &open = *opened;
    check_operand(value_dtype, "value");
    if (!open.steps.empty()) fail(PORTLLM_INVALID, "a tensor to which something is added cannot be replaced as well");
    Step step(Step::kReplace);
    step.value_dtype = value_dtype;
    open.operand_dtypes.reserve(1);
    open.steps.push_back(std::move(step));
    open.operand_dtypes.push_back(value_dtype);
  });
}

}  // extern "C"
