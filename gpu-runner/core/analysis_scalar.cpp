// The analysis in plain C++: what the other paths must equal bit for bit.
#include <cmath>

#include "analysis_kernels.h"
#include "float_formats.h"
#include "portllm_core.h"

namespace portllm {
namespace {

struct Eight {
  double lanes[8];
  static inline Eight all(double value) {
    Eight result;
    for (int l = 0; l < 8; l++) result.lanes[l] = value;
    return result;
  }
  static inline Eight load(const double *from) {
    Eight result;
    std::memcpy(result.lanes, from, sizeof result.lanes);
    return result;
  }
  inline void store(double *to) const { std::memcpy(to, lanes, sizeof lanes); }
  static inline Eight fma(const Eight &a, const Eight &b, const Eight &c) {
    Eight result;
    for (int l = 0; l < 8; l++) result.lanes[l] = std::fma(a.lanes[l], b.lanes[l], c.lanes[l]);
    return result;
  }
};

}  // namespace
}  // namespace portllm

#include "analysis_body.h"

namespace portllm {
const AnalysisKernels kScalarAnalysis = kKernels;
}  // namespace portllm
