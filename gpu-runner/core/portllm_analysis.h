/*
 * Figures of a patch on an evolved tensor, from weights alone (docs/analysis.md): W is the base's
 * tensor, W' the target's, D = W' - W, and P the sum of the low-rank products of the patch. The rows of
 * W and W' stream through once, in order; memory is that of the factors in float64, whatever the rows.
 *
 * The same conventions as portllm_core.h: every argument is checked, a refusal comes as a status and
 * one sentence, no pointer is kept. Calls on one analysis wait for each other. All sums are float64 in a fixed order, so that the figures depend
 * neither on threads, nor on how the rows are cut, nor on the path.
 */
#ifndef PORTLLM_ANALYSIS_H
#define PORTLLM_ANALYSIS_H

#include "portllm_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One tensor of base and target (rows x cols each, row-major), or a run of rows of it. */
typedef struct portllm_analysis portllm_analysis;

/* Dtypes of base and target: all but F8_E8M0; they may differ. */
PORTLLM_EXPORT int32_t portllm_analysis_create(int32_t base_dtype, int32_t target_dtype, uint64_t rows,
                                               uint64_t cols, portllm_analysis **analysis, char *message,
                                               size_t message_size);

/* Appends `scale * left @ right` to P: left is (rows, rank), right is (rank, cols). Copied, as float64. */
PORTLLM_EXPORT int32_t portllm_analysis_add(portllm_analysis *analysis, const portllm_matrix *left,
                                            const portllm_matrix *right, uint64_t rank, double scale,
                                            char *message, size_t message_size);

/*
 * The rows of W for which the best match among the rows of W' is looked for, once, before the first
 * rows: `count` different numbers in ascending order, and those rows of W as stored. Each costs one
 * fused multiply-add for every element of W'.
 */
PORTLLM_EXPORT int32_t portllm_analysis_sample(portllm_analysis *analysis, const uint64_t *rows,
                                               uint64_t count, const void *base, uint64_t base_bytes,
                                               char *message, size_t message_size);

/* The next rows: first_row is where the last call ended. */
PORTLLM_EXPORT int32_t portllm_analysis_rows(portllm_analysis *analysis, int32_t path, uint32_t threads,
                                             uint64_t first_row, uint64_t row_count, const void *base,
                                             uint64_t base_bytes, const void *target,
                                             uint64_t target_bytes, char *message, size_t message_size);

/*
 * Q_A and Q_B are orthonormal bases of the row space and of the column space of P's factors; directions
 * below the rounding noise of the factors are left out, so the ranks may be less than asked for, or 0.
 */
typedef struct {
  double base_squared;        /* |W|^2 (Frobenius, as all of these) */
  double drift_squared;       /* |D|^2 */
  double patch_squared;       /* |P|^2 */
  double patch_spectral;      /* largest singular value of P */
  double inner;               /* <D, P> */
  double read_rank;           /* columns of Q_A */
  double write_rank;          /* columns of Q_B */
  double drift_read_squared;  /* |D Q_A|^2 */
  double base_read_squared;   /* |W Q_A|^2 */
  double drift_write_squared; /* |Q_B^T D|^2 */
  double base_write_squared;  /* |Q_B^T W|^2 */
} portllm_analysis_sums;

/* Once all rows have come. */
PORTLLM_EXPORT int32_t portllm_analysis_finish(const portllm_analysis *analysis, int32_t path,
                                               portllm_analysis_sums *sums, char *message,
                                               size_t message_size);

/* Of one sampled row of W: its cosines with rows of W'. NaN where one of the two is zero, or there is none. */
typedef struct {
  double same;      /* with the row of the same number */
  double best;      /* with the best of the others */
  double best_row;  /* the number of that one */
} portllm_row_match;

/* Once all rows have come: one for each sampled row, in their order. */
PORTLLM_EXPORT int32_t portllm_analysis_matches(const portllm_analysis *analysis, portllm_row_match *matches,
                                                uint64_t count, char *message, size_t message_size);

PORTLLM_EXPORT void portllm_analysis_free(portllm_analysis *analysis);

#ifdef __cplusplus
}
#endif
#endif
