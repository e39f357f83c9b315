// The fast kernel: a block computes 64 rows x 64 columns. Beside merge_plain.cu it
//  - reads each factor once per tile instead of once per element: a chunk of 16 ranks of A and of B lies in shared
//    memory, and each thread multiplies 8 rows x 4 columns of it out of registers, 32 multiply-adds for three 16-byte reads;
//  - keeps t in shared memory between products, so that registers hold only d, and more blocks fit on a processor;
//  - finishes in another division of labour, through t in shared memory: a thread has half a row, in pieces of 8 columns
//    that are one 16-byte access each (two for F32), and all four elements of each of its lanes, so that the figures need
//    no exchange between threads;
//  - looks once at eight elements whether one of them is not finite, and goes through them one by one only then.
// The operations on each element, and their order, are those of merge_plain.cu.
#include <type_traits>

#include "element.h"
#include "launch.h"

namespace portllm::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kTileRows = 64;
constexpr uint32_t kTileGroups = kTileRows / kGroupRows;
constexpr uint32_t kDepth = 16;      // ranks in shared memory at a time
constexpr uint32_t kThreadRows = 8;  // by 4 columns
constexpr uint32_t kVectors = kPanelCols / 4;
// Floats from row to row of t. One float4 more than the panel: the eight threads that read together, of the rows
// 0, 1, 4 and 5 and of both halves, then fall into different banks.
constexpr uint32_t kPitch = kPanelCols + 4;
constexpr uint32_t kPieces = 4;
constexpr uint32_t kPieceCols = 8;

// As many as registers hold without spilling any; where a processor has 100 KiB of shared memory, no more than that holds.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ == 1200)
constexpr uint32_t kFloatBlocks = 3;
#else
constexpr uint32_t kFloatBlocks = 4;
#endif
template <class Format>
constexpr uint32_t kBlocksPerProcessor = sizeof(typename Format::Real) > sizeof(float) ? 2 : kFloatBlocks;

struct Shared {
  float t[kTileRows][kPitch];
  float4 right[kDepth][kVectors];    // A: 64 columns of each k
  float4 left[kTileGroups][kDepth];  // B: four rows of each k
};

// Eight elements, in accesses of 16 bytes; of 8 for one-byte elements.
template <class Format>
union Piece {
  using Word = std::conditional_t<sizeof(typename Format::Stored) == 1, uint2, uint4>;
  static constexpr uint32_t kWords = kPieceCols * sizeof(typename Format::Stored) / sizeof(Word);
  Word words[kWords];
  typename Format::Stored elements[kPieceCols];

  __device__ void read(const uint8_t *from) {
#pragma unroll
    for (uint32_t v = 0; v < kWords; v++) words[v] = __ldcs(reinterpret_cast<const Word *>(from) + v);
  }
  __device__ void write(uint8_t *to) const {
#pragma unroll
    for (uint32_t v = 0; v < kWords; v++) __stcs(reinterpret_cast<Word *>(to) + v, words[v]);
  }
};

// finish() of eight elements.
template <class Format>
__device__ inline void finish_piece(Piece<Format> &piece, const float (&t)[kPieceCols], bool with_figures,
                                    LaneFigures<typename Format::Real> (&figures)[kPieceCols], uint32_t &non_finite) {
  using Real = typename Format::Real;
  Real w[kPieceCols], y[kPieceCols];
  bool all_finite = true;
#pragma unroll
  for (uint32_t j = 0; j < kPieceCols; j++) {
    w[j] = Format::load(piece.elements[j]);
    y[j] = add(w[j], static_cast<Real>(t[j]));
    all_finite = all_finite && below(y[j], Format::kFinite);
  }
  if (!all_finite) {
#pragma unroll
    for (uint32_t j = 0; j < kPieceCols; j++) piece.elements[j] = finish<Format>(piece.elements[j], t[j], figures[j], non_finite);
    return;
  }
#pragma unroll
  for (uint32_t j = 0; j < kPieceCols; j++) piece.elements[j] = Format::round_number(y[j]);
  if (!with_figures) return;
#pragma unroll
  for (uint32_t j = 0; j < kPieceCols; j++) figures[j].add(w[j], t[j], Format::load(piece.elements[j]));
}

// Eight lanes of one figure of a row's panel.
__device__ inline void write_lanes(float *to, const float (&sums)[kPieceCols]) {
  float4 *words = reinterpret_cast<float4 *>(to);
  __stcs(words, make_float4(sums[0], sums[1], sums[2], sums[3]));
  __stcs(words + 1, make_float4(sums[4], sums[5], sums[6], sums[7]));
}
__device__ inline void write_lanes(double *to, const double (&sums)[kPieceCols]) {
#pragma unroll
  for (uint32_t l = 0; l < kPieceCols; l++) to[l] = sums[l];
}

// d[i][j] = fma(B, A, d[i][j]) for one rank, `low` and `high` being B's 8 rows and `a` A's 4 columns.
__device__ inline void multiply_add(float (&d)[kThreadRows][4], float4 low, float4 high, float4 a) {
  const float b[kThreadRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (uint32_t i = 0; i < kThreadRows; i++) {
    d[i][0] = __fmaf_rn(b[i], a.x, d[i][0]);
    d[i][1] = __fmaf_rn(b[i], a.y, d[i][1]);
    d[i][2] = __fmaf_rn(b[i], a.z, d[i][2]);
    d[i][3] = __fmaf_rn(b[i], a.w, d[i][3]);
  }
}

// t = Σ scale · B A of the tile, product after product.
__device__ inline void accumulate(const Band &band, Shared &shared, uint32_t panel, uint64_t first_group) {
  const float4 *factors = reinterpret_cast<const float4 *>(band.products);
  const uint32_t vector = threadIdx.x % kVectors, rows = threadIdx.x / kVectors * kThreadRows;
  for (uint32_t p = 0; p < band.product_count; p++) {
    const Product product = band.products[p];
    const float4 *right = factors + product.right + static_cast<uint64_t>(panel) * product.rank * kVectors;
    const float4 *left = factors + product.left + first_group * product.rank;
    float d[kThreadRows][4] = {};
    for (uint32_t first = 0; first < product.rank; first += kDepth) {
      const uint32_t depth = min(kDepth, product.rank - first);
      __syncthreads();  // all have read the chunk before
#pragma unroll
      for (uint32_t k = threadIdx.x / kVectors; k < kDepth; k += kThreads / kVectors) {
        if (k < depth) shared.right[k][vector] = right[(first + k) * static_cast<uint64_t>(kVectors) + vector];
      }
      const uint32_t k = threadIdx.x % kDepth;
#pragma unroll
      for (uint32_t group = threadIdx.x / kDepth; group < kTileGroups; group += kThreads / kDepth) {
        if (k < depth && first_group + group < band.groups) shared.left[group][k] = left[group * static_cast<uint64_t>(product.rank) + first + k];
      }
      __syncthreads();
#pragma unroll 4
      for (uint32_t k = 0; k < depth; k++) {
        multiply_add(d, shared.left[rows / kGroupRows][k], shared.left[rows / kGroupRows + 1][k], shared.right[k][vector]);
      }
    }
#pragma unroll
    for (uint32_t i = 0; i < kThreadRows; i++) {
      float4 *t = reinterpret_cast<float4 *>(&shared.t[rows + i][4 * vector]);
      const float4 before = p == 0 ? make_float4(0, 0, 0, 0) : *t;
      *t = make_float4(__fadd_rn(before.x, __fmul_rn(product.scale, d[i][0])), __fadd_rn(before.y, __fmul_rn(product.scale, d[i][1])),
                       __fadd_rn(before.z, __fmul_rn(product.scale, d[i][2])), __fadd_rn(before.w, __fmul_rn(product.scale, d[i][3])));
    }
  }
}

template <class Format>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Format>) tiles(Band band) {
  using Real = typename Format::Real;
  Shared &shared = shared_memory<Shared>();
  const uint32_t panel = blockIdx.x, first_row = blockIdx.y * kTileRows;

  // The thread's half row in finish. Rows 2 and 4, 3 and 5 change places, for the banks' sake.
  const uint32_t order = threadIdx.x / 2, half = threadIdx.x % 2;
  const uint32_t i = (order & ~6u) | (order & 2u) << 1 | (order & 4u) >> 1;
  const uint32_t row = first_row + i;
  const bool wanted = row >= band.begin && row < band.end;
  uint8_t *elements = band.rows + row * band.pitch + (panel * kPanelCols + half * kPieceCols) * sizeof(typename Format::Stored);
  const uint64_t piece_bytes = 2 * kPieceCols * sizeof(typename Format::Stored);

  // W is asked for first: it arrives while the products are summed.
  Piece<Format> pieces[kPieces] = {};
  if (wanted) {
#pragma unroll
    for (uint32_t q = 0; q < kPieces; q++) pieces[q].read(elements + q * piece_bytes);
  }

  accumulate(band, shared, panel, band.first_group + first_row / kGroupRows);
  __syncthreads();
  if (!wanted) return;

  LaneFigures<Real> figures[kPieceCols];
  uint32_t non_finite = 0;
#pragma unroll
  for (uint32_t q = 0; q < kPieces; q++) {
    const float4 *t = reinterpret_cast<const float4 *>(&shared.t[i][q * 2 * kPieceCols + half * kPieceCols]);
    const float4 low = t[0], high = t[1];
    const float values[kPieceCols] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    finish_piece(pieces[q], values, band.partials != nullptr, figures, non_finite);
    pieces[q].write(elements + q * piece_bytes);
  }

  if (!band.partials) return;
  Real *partials = static_cast<Real *>(band.partials) + (static_cast<uint64_t>(row) * gridDim.x + panel) * kFigures * kLanes + half * kPieceCols;
  Real sums[kFigures][kPieceCols];
#pragma unroll
  for (uint32_t l = 0; l < kPieceCols; l++) {
    sums[0][l] = figures[l].patch;
    sums[1][l] = figures[l].realised;
    sums[2][l] = figures[l].residual;
  }
#pragma unroll
  for (uint32_t figure = 0; figure < kFigures; figure++) write_lanes(partials + figure * kLanes, sums[figure]);
  if (non_finite) atomicAdd(&band.non_finite[row], non_finite);
}

template <class Format>
cudaError_t launch_tiles(const Band &band, cudaStream_t stream) {
  return launch(tiles<Format>, dim3(panels_of(band.cols), (band.end + kTileRows - 1) / kTileRows), kThreads, sizeof(Shared), stream, band);
}

}  // namespace

cudaError_t merge_tiles(const Band &band, int32_t dtype, cudaStream_t stream) {
  switch (dtype) {
    case PORTLLM_F32: return launch_tiles<F32>(band, stream);
    case PORTLLM_F16: return launch_tiles<F16>(band, stream);
    case PORTLLM_BF16: return launch_tiles<BF16>(band, stream);
    case PORTLLM_F64: return launch_tiles<F64>(band, stream);
    case PORTLLM_F8_E4M3: return launch_tiles<F8E4M3>(band, stream);
    case PORTLLM_F8_E5M2: return launch_tiles<F8E5M2>(band, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace portllm::cuda
