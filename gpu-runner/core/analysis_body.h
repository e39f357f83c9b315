// The loops of analysis_kernels.h over a type Eight of 8 doubles, which the including file has defined:
// load, store, all(double) and fma(a, b, c). Included once by each path, inside its target region.
// No include guard and no includes, on purpose.

namespace portllm {
namespace {

inline double sum_of(Eight value) {
  double v[8];
  value.store(v);
  for (int l = 0; l < 4; l++) v[l] = v[l] + v[l + 4];
  return (v[0] + v[2]) + (v[1] + v[3]);
}

void widen(int32_t dtype, const uint8_t *from, uint64_t count, double *to) {
  if (dtype == PORTLLM_BF16) {
    for (uint64_t j = 0; j < count; j++) {
      uint16_t half;
      std::memcpy(&half, from + 2 * j, 2);
      to[j] = static_cast<double>(from_bf16(half));
    }
  } else if (dtype == PORTLLM_F16) {
    for (uint64_t j = 0; j < count; j++) {
      uint16_t half;
      std::memcpy(&half, from + 2 * j, 2);
      to[j] = static_cast<double>(from_f16(half));
    }
  } else if (dtype == PORTLLM_F32) {
    for (uint64_t j = 0; j < count; j++) {
      float value;
      std::memcpy(&value, from + 4 * j, 4);
      to[j] = static_cast<double>(value);
    }
  } else if (dtype == PORTLLM_F64) {
    std::memcpy(to, from, 8 * count);
  } else {
    for (uint64_t j = 0; j < count; j++) to[j] = dtype == PORTLLM_F8_E5M2 ? from_f8_e5m2(from[j]) : from_f8_e4m3(from[j]);
  }
}

double dot(const double *a, const double *b, uint64_t n) {
  Eight sums[4] = {Eight::all(0), Eight::all(0), Eight::all(0), Eight::all(0)};
  for (uint64_t j = 0; j < n; j += 32) {
    for (int v = 0; v < 4; v++) sums[v] = Eight::fma(Eight::load(a + j + 8 * v), Eight::load(b + j + 8 * v), sums[v]);
  }
  return (sum_of(sums[0]) + sum_of(sums[1])) + (sum_of(sums[2]) + sum_of(sums[3]));
}

void subtract(double *c, double factor, const double *q, uint64_t n) {
  const Eight minus = Eight::all(-factor);
  for (uint64_t j = 0; j < n; j += 8) Eight::fma(minus, Eight::load(q + j), Eight::load(c + j)).store(c + j);
}

template <int kCount>
inline void dots_block(const double *x, uint64_t x_stride, const double *q, uint64_t q_stride, uint64_t n,
                       double *sums, uint64_t sums_stride) {
  Eight s[4][kCount];
  for (int i = 0; i < 4; i++) for (int k = 0; k < kCount; k++) s[i][k] = Eight::all(0);
  for (uint64_t j = 0; j < n; j += 8) {
    Eight v[kCount];
    for (int k = 0; k < kCount; k++) v[k] = Eight::load(q + k * q_stride + j);
    for (int i = 0; i < 4; i++) {
      const Eight row = Eight::load(x + i * x_stride + j);
      for (int k = 0; k < kCount; k++) s[i][k] = Eight::fma(row, v[k], s[i][k]);
    }
  }
  for (int i = 0; i < 4; i++) for (int k = 0; k < kCount; k++) sums[i * sums_stride + k] += sum_of(s[i][k]);
}

void add_dots(const double *x, uint64_t x_stride, uint64_t rows, const double *q, uint64_t q_stride,
              uint64_t count, uint64_t n, double *sums, uint64_t sums_stride) {
  uint64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    for (uint64_t i = 0; i < rows; i += 4) {
      dots_block<4>(x + i * x_stride, x_stride, q + k * q_stride, q_stride, n, sums + i * sums_stride + k, sums_stride);
    }
  }
  for (; k < count; k++) {
    for (uint64_t i = 0; i < rows; i += 4) {
      dots_block<1>(x + i * x_stride, x_stride, q + k * q_stride, q_stride, n, sums + i * sums_stride + k, sums_stride);
    }
  }
}

void add_squares(const double *x, uint64_t x_stride, uint64_t rows, uint64_t n, double *sums) {
  for (uint64_t i = 0; i < rows; i += 4) {
    Eight s[4] = {Eight::all(0), Eight::all(0), Eight::all(0), Eight::all(0)};
    for (uint64_t j = 0; j < n; j += 8) {
      for (int r = 0; r < 4; r++) {
        const Eight value = Eight::load(x + (i + r) * x_stride + j);
        s[r] = Eight::fma(value, value, s[r]);
      }
    }
    for (int r = 0; r < 4; r++) sums[i + r] += sum_of(s[r]);
  }
}

template <int kCount>
inline void columns_block(const double *x, uint64_t x_stride, uint64_t rows, const double *b, uint64_t b_stride,
                          double *sums, uint64_t sums_stride) {
  Eight s[kCount][2];
  for (int k = 0; k < kCount; k++) for (int v = 0; v < 2; v++) s[k][v] = Eight::load(sums + k * sums_stride + 8 * v);
  for (uint64_t i = 0; i < rows; i++) {
    const Eight first = Eight::load(x + i * x_stride), second = Eight::load(x + i * x_stride + 8);
    for (int k = 0; k < kCount; k++) {
      const Eight factor = Eight::all(b[k * b_stride + i]);
      s[k][0] = Eight::fma(factor, first, s[k][0]);
      s[k][1] = Eight::fma(factor, second, s[k][1]);
    }
  }
  for (int k = 0; k < kCount; k++) for (int v = 0; v < 2; v++) s[k][v].store(sums + k * sums_stride + 8 * v);
}

void add_columns(const double *x, uint64_t x_stride, uint64_t rows, const double *b, uint64_t b_stride,
                 uint64_t count, uint64_t n, double *sums, uint64_t sums_stride) {
  uint64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    for (uint64_t j = 0; j < n; j += 16) {
      columns_block<4>(x + j, x_stride, rows, b + k * b_stride, b_stride, sums + k * sums_stride + j, sums_stride);
    }
  }
  for (; k < count; k++) {
    for (uint64_t j = 0; j < n; j += 16) {
      columns_block<1>(x + j, x_stride, rows, b + k * b_stride, b_stride, sums + k * sums_stride + j, sums_stride);
    }
  }
}

constexpr AnalysisKernels kKernels = {widen, dot, subtract, add_dots, add_squares, add_columns};

}  // namespace
}  // namespace portllm
