// The figures of whole rows. Additions in float64 must follow the order of the panels, so one thread walks one row's
// lane of one figure from left to right; merge kernels are free to compute panels in any order.
#include "kernels.h"
#include "launch.h"

namespace portllm::cuda {
namespace {

constexpr uint32_t kColumns = kFigures * kLanes;
constexpr uint32_t kRows = 8;

struct SumArguments {
  Band band;
  RowFigures *figures;
};

__device__ double sum_lanes(const double *lanes) {
  double eight[8], four[4];
  for (int l = 0; l < 8; l++) eight[l] = __dadd_rn(lanes[l], lanes[l + 8]);
  for (int l = 0; l < 4; l++) four[l] = __dadd_rn(eight[l], eight[l + 4]);
  return __dadd_rn(__dadd_rn(four[0], four[2]), __dadd_rn(four[1], four[3]));
}

template <class Real>
__global__ void sum(SumArguments arguments) {
  const Band &band = arguments.band;
  auto &lanes = shared_memory<double[kRows * kColumns]>();
  const uint32_t column = threadIdx.x % kColumns;
  const uint32_t row = band.begin + blockIdx.x * kRows + threadIdx.x / kColumns;
  const uint32_t panels = panels_of(band.cols);
  double total = 0;
  if (row < band.end) {
    const Real *partials = static_cast<const Real *>(band.partials) + static_cast<uint64_t>(row) * panels * kColumns + column;
    for (uint32_t panel = 0; panel < panels; panel++) total = __dadd_rn(total, partials[static_cast<uint64_t>(panel) * kColumns]);
  }
  lanes[threadIdx.x] = total;
  __syncthreads();
  if (row >= band.end || column != 0) return;
  const double *of_row = lanes + threadIdx.x;
  arguments.figures[row - band.begin] = {sum_lanes(of_row), sum_lanes(of_row + kLanes), sum_lanes(of_row + 2 * kLanes), band.non_finite[row]};
}

}  // namespace

cudaError_t sum_figures(const Band &band, int32_t dtype, RowFigures *figures, cudaStream_t stream) {
  const dim3 grid((band.end - band.begin + kRows - 1) / kRows);
  return launch(dtype == PORTLLM_F64 ? sum<double> : sum<float>, grid, kRows * kColumns, kRows * kColumns * sizeof(double), stream, SumArguments{band, figures});
}

}  // namespace portllm::cuda
