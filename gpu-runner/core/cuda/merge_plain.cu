// Rule lora-f32/1 as one reads it in docs/numerics.md: a thread has one lane of one panel of one row, so four elements,
// and computes each from the factors in global memory. Slow, and what merge_tiles.cu is checked against.
#include "element.h"
#include "launch.h"

namespace portllm::cuda {
namespace {

constexpr uint32_t kThreads = 256;

template <class Format>
__global__ void plain(Band band) {
  const uint32_t panels = panels_of(band.cols);
  const uint32_t lane = threadIdx.x % kLanes;
  const uint32_t panel = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const uint64_t row = band.begin + blockIdx.y;
  if (panel >= panels) return;
  const float *factors = reinterpret_cast<const float *>(band.products);
  const uint64_t tensor_row = band.first_group * kGroupRows + row;
  LaneFigures<typename Format::Real> figures;
  uint32_t non_finite = 0;

  for (uint32_t column = panel * kPanelCols + lane; column < (panel + 1) * kPanelCols && column < band.cols; column += kLanes) {
    float t = 0;
    for (uint32_t p = 0; p < band.product_count; p++) {
      const Product product = band.products[p];
      const float *left = factors + 4 * product.left + tensor_row / kGroupRows * kGroupRows * product.rank + tensor_row % kGroupRows;
      const float *right = factors + 4 * product.right + static_cast<uint64_t>(panel) * kPanelCols * product.rank + column % kPanelCols;
      float d = 0;
      for (uint32_t k = 0; k < product.rank; k++) {
        d = __fmaf_rn(left[k * static_cast<uint64_t>(kGroupRows)], right[k * static_cast<uint64_t>(kPanelCols)], d);
      }
      t = __fadd_rn(t, __fmul_rn(product.scale, d));
    }
    auto *element = reinterpret_cast<typename Format::Stored *>(band.rows + row * band.pitch) + column;
    *element = finish<Format>(*element, t, figures, non_finite);
  }

  if (!band.partials) return;
  auto *partials = static_cast<typename Format::Real *>(band.partials) + (row * panels + panel) * kFigures * kLanes + lane;
  partials[0 * kLanes] = figures.patch;
  partials[1 * kLanes] = figures.realised;
  partials[2 * kLanes] = figures.residual;
  if (non_finite) atomicAdd(&band.non_finite[row], non_finite);
}

}  // namespace

cudaError_t merge_plain(const Band &band, int32_t dtype, cudaStream_t stream) {
  constexpr uint32_t kPanels = kThreads / kLanes;
  const dim3 grid((panels_of(band.cols) + kPanels - 1) / kPanels, band.end - band.begin);
  switch (dtype) {
    case PORTLLM_F32: return launch(plain<F32>, grid, kThreads, 0, stream, band);
    case PORTLLM_F16: return launch(plain<F16>, grid, kThreads, 0, stream, band);
    case PORTLLM_BF16: return launch(plain<BF16>, grid, kThreads, 0, stream, band);
    case PORTLLM_F64: return launch(plain<F64>, grid, kThreads, 0, stream, band);
    case PORTLLM_F8_E4M3: return launch(plain<F8E4M3>, grid, kThreads, 0, stream, band);
    case PORTLLM_F8_E5M2: return launch(plain<F8E5M2>, grid, kThreads, 0, stream, band);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace portllm::cuda
