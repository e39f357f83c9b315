/*
 * The merge core: a plain C interface to the rules of docs/numerics.md.
 *
 * Every function checks all of its arguments. Those that can fail return a portllm_status and write
 * one sentence, always terminated, into `message` (may be NULL). No function keeps a pointer that it
 * was given, none calls back, and all are safe to call from several threads at once. A tensor, source
 * or analysis that was freed is refused like NULL, and lives until calls that had begun with it have ended.
 */
#ifndef PORTLLM_CORE_H
#define PORTLLM_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PORTLLM_EXPORT __attribute__((visibility("default")))

enum portllm_status {
  PORTLLM_OK = 0,
  PORTLLM_INVALID = 1,     /* an argument is wrong: sizes, ranges, dtypes, null pointers */
  PORTLLM_UNSUPPORTED = 2, /* this processor lacks what the path needs */
  PORTLLM_NONFINITE = 3,   /* a factor or a scale holds NaN or infinity */
  PORTLLM_MEMORY = 4,      /* out of memory or threads */
  PORTLLM_IO = 5,          /* reading or writing failed; error_number holds errno */
  PORTLLM_CANCELLED = 6,
  PORTLLM_UNDETERMINED = 7, /* the input does not decide the result */
  PORTLLM_DEVICE = 8       /* a GPU, its driver or the CUDA helper failed; start the helper again */
};

enum portllm_dtype {
  PORTLLM_F32 = 0,
  PORTLLM_F16 = 1,
  PORTLLM_BF16 = 2,
  PORTLLM_F64 = 3,
  PORTLLM_F8_E4M3 = 4, /* the variant without infinities (OCP E4M3FN) */
  PORTLLM_F8_E5M2 = 5,
  PORTLLM_F8_E8M0 = 6 /* countable only */
};

enum portllm_path { PORTLLM_SCALAR = 0, PORTLLM_AVX2 = 1, PORTLLM_AVX512 = 2, PORTLLM_AVX512_BF16 = 3, PORTLLM_NEON = 4, PORTLLM_CUDA = 16 };

/* 1 where this machine and this build can run `path`; CUDA while its helper runs. */
PORTLLM_EXPORT int32_t portllm_path_supported(int32_t path);

/* Version of this interface and the rules that it computes, such as "2 lora-f32/1 dora-f32/1". */
PORTLLM_EXPORT const char *portllm_version(void);

/*
 * One target tensor, seen as a matrix (rows x cols, row-major), or a run of its rows, and its contributions. What the
 * rules take from whole columns they take from the rows given here.
 */
typedef struct portllm_tensor portllm_tensor;

/* `dtype` is any but F8_E8M0. */
PORTLLM_EXPORT int32_t portllm_tensor_create(int32_t dtype, uint64_t rows, uint64_t cols,
                                             portllm_tensor **tensor, char *message,
                                             size_t message_size);

/* A matrix within stored bytes, in elements: (i, j) lies at offset + i * row_stride + j * col_stride. */
typedef struct {
  const void *bytes;
  uint64_t size; /* of `bytes`, in bytes */
  uint64_t offset;
  uint64_t row_stride;
  uint64_t col_stride;
  int32_t dtype; /* F32, F16 or BF16 */
} portllm_matrix;

/*
 * The portllm_tensor_add_* append a contribution; the order of the calls is the order of summation. None is allowed
 * once the first row has been measured or merged. Factors and magnitudes are copied, as float32, and must be finite.
 */

/* t += scale * (left @ right); left is (rows, rank), right is (rank, cols). */
PORTLLM_EXPORT int32_t portllm_tensor_add_product(portllm_tensor *tensor, const portllm_matrix *left,
                                                  const portllm_matrix *right, uint64_t rank,
                                                  float scale, char *message, size_t message_size);

enum portllm_axis { PORTLLM_ROWS = 0, PORTLLM_COLUMNS = 1 };

/*
 * t += weight * (m (W + scale * (left @ right)) / n - W), n being the Euclidean norm of each row or each column of the
 * bracket; alone on the tensor and with weight 1, W is not subtracted. `magnitude` holds m: rows or cols values, one
 * after the other. With PORTLLM_COLUMNS all rows have to be measured before the first is merged.
 */
PORTLLM_EXPORT int32_t portllm_tensor_add_dora(portllm_tensor *tensor, const portllm_matrix *left,
                                               const portllm_matrix *right, uint64_t rank, float scale,
                                               const void *magnitude, uint64_t magnitude_bytes,
                                               int32_t magnitude_dtype, int32_t axis, double weight,
                                               char *message, size_t message_size);

/* t += scale * (value - base), or scale * value where base_dtype is -1. Operands come with the rows, in any dtype but F8_E8M0. */
PORTLLM_EXPORT int32_t portllm_tensor_add_dense(portllm_tensor *tensor, int32_t value_dtype,
                                                int32_t base_dtype, double scale, char *message,
                                                size_t message_size);

/* The output is the operand `value`, rounded; no other contribution may stand beside it. */
PORTLLM_EXPORT int32_t portllm_tensor_add_replace(portllm_tensor *tensor, int32_t value_dtype,
                                                  char *message, size_t message_size);

/* Rows of an operand, as stored, row-major. */
typedef struct {
  const void *bytes;
  uint64_t size;
} portllm_bytes;

/* What is kept for portllm_tensor_figures: the norms cost time, counting does not. */
enum portllm_keep { PORTLLM_KEEP_NOTHING = 0, PORTLLM_KEEP_FIGURES = 1, PORTLLM_KEEP_COUNT = 2 };

/*
 * Merges rows [first_row, first_row + row_count). `w` holds exactly these rows as stored, `out` receives them; `out` is
 * `w` or does not overlap it. `operands` are the same rows of each dense or replacing contribution in order, the value
 * and then the base where there is one; they do not overlap `out`. `figures` is a portllm_keep. `threads` is
 * at least 1; the result does not depend on it.
 */
PORTLLM_EXPORT int32_t portllm_tensor_merge(portllm_tensor *tensor, int32_t path, uint32_t threads,
                                            int32_t figures, uint64_t first_row, uint64_t row_count,
                                            const void *w, uint64_t w_bytes, void *out,
                                            uint64_t out_bytes, const portllm_bytes *operands,
                                            uint64_t operand_count, char *message, size_t message_size);

/*
 * The same, W being read from `file` at byte `offset`, by the calling thread: for rows that are to be sent. `out` holds
 * anything where it fails. Beside what portllm_tensor_merge says: PORTLLM_IO.
 */
PORTLLM_EXPORT int32_t portllm_tensor_merge_file(portllm_tensor *tensor, int32_t path, int32_t figures, uint64_t first_row,
                                                 uint64_t row_count, int32_t file, uint64_t offset, void *out,
                                                 uint64_t out_bytes, const portllm_bytes *operands,
                                                 uint64_t operand_count, char *message, size_t message_size);

/* 1 where `path` can merge this tensor: any path of the processor can; CUDA where there are only products and a row fits a slot. */
PORTLLM_EXPORT int32_t portllm_tensor_supported(const portllm_tensor *tensor, int32_t path);

/* 1 where portllm_tensor_measure has to see all rows before the first merge. */
PORTLLM_EXPORT int32_t portllm_tensor_measures(const portllm_tensor *tensor);

/* Takes the column norms' part of rows [first_row, first_row + row_count) of W. Rows are measured in order, each once. */
PORTLLM_EXPORT int32_t portllm_tensor_measure(portllm_tensor *tensor, int32_t path, uint32_t threads,
                                              uint64_t first_row, uint64_t row_count, const void *w,
                                              uint64_t w_bytes, char *message, size_t message_size);

/* Frobenius norms, and how many outputs are NaN or infinite; those count in no norm. */
typedef struct {
  double patch_norm;    /* |P| */
  double realised_norm; /* |round(W+P) - W| */
  double residual_norm; /* |round(W+P) - W - P|, what the rounding lost */
  double non_finite;
} portllm_figures;

/* Over the rows merged with figures so far. */
PORTLLM_EXPORT int32_t portllm_tensor_figures(const portllm_tensor *tensor, portllm_figures *figures,
                                              char *message, size_t message_size);

PORTLLM_EXPORT void portllm_tensor_free(portllm_tensor *tensor);

enum portllm_initial { PORTLLM_PISSA = 0, PORTLLM_OLORA = 1 };

/*
 * The product that a method took out of the base's tensor (rows x cols, row-major, any dtype of a target but F64) when training
 * with `rank` began, from which the adapter's own product is counted: `left` (rows x rank) and `right` (rank x cols), float32,
 * row-major. With OLoRA the product is still to be scaled. The result does not depend on `threads`. Memory: the numbers
 * that are returned, and for PiSSA some hundreds of vectors of length min(rows, cols) in float64.
 */
PORTLLM_EXPORT int32_t portllm_initial_factors(int32_t method, const void *base, uint64_t base_bytes,
                                               int32_t dtype, uint64_t rows, uint64_t cols,
                                               uint64_t rank, uint32_t threads, float *left,
                                               uint64_t left_count, float *right,
                                               uint64_t right_count, char *message,
                                               size_t message_size);

/* Counts NaN and infinity; a trailing partial element is an error. */
PORTLLM_EXPORT int32_t portllm_count_non_finite(const void *bytes, uint64_t size, int32_t dtype,
                                                double *count, char *message, size_t message_size);

/*
 * Reads the header of a safetensors file from its first bytes and checks it: `size` of the file's `file_size` bytes, the
 * header at least. Gives its tensors in the order of their data, from number `first` on as many as `json` has room for (16 KiB
 * hold any one), as JSON with offsets from the start of the file: [{"name":…,"dtype":…,"shape":[…],"begin":…,"end":…}, …].
 */
typedef struct {
  uint64_t tensors; /* of the whole header */
  uint64_t next;    /* the first that is not among those given */
  uint64_t length;  /* of the text */
} portllm_header_part;

PORTLLM_EXPORT int32_t portllm_read_header(const void *bytes, uint64_t size, uint64_t file_size, uint64_t first,
                                           char *json, uint64_t json_size, portllm_header_part *part,
                                           char *message, size_t message_size);

/* A safetensors file that is open for reading, with its header as the core has read and checked it. */
typedef struct portllm_source portllm_source;

/* `file` may be closed afterwards. Memory: the header, at most 16 MiB, a few times. */
PORTLLM_EXPORT int32_t portllm_source_open(int32_t file, portllm_source **source, char *message,
                                           size_t message_size);

PORTLLM_EXPORT void portllm_source_free(portllm_source *source);

enum portllm_segment_kind { PORTLLM_COPY = 0, PORTLLM_MERGE = 1 };

/* Where the rows of a tensor's operand begin: in a tensor of a source, from its first row or from another. */
typedef struct {
  const portllm_source *source;
  uint64_t offset; /* from the start of the file */
} portllm_operand;

/*
 * A range of the destination: copied from the source, or merged from one tensor of the source, or from a run of its rows,
 * with the dtype that it has there.
 */
typedef struct {
  uint64_t kind;
  uint64_t source_offset;
  uint64_t destination_offset;
  uint64_t length;
  portllm_tensor *tensor; /* PORTLLM_MERGE only; length is its size in bytes */
  uint64_t first_operand; /* its place in the list of operands; as many as the tensor's contributions have */
} portllm_segment;

/* What is written into one open file: the segments are in the order of the destination and do not overlap there. */
typedef struct {
  const portllm_source *source;
  int64_t destination;
  const portllm_segment *segments;
  uint64_t count;
} portllm_output;

/* Written by the core while it runs, read by the caller; `cancel` the other way round. */
typedef struct {
  uint64_t cancel;
  uint64_t bytes_done;
  uint64_t error_number;
  uint64_t error_output; /* index of the output at fault, where there is an error_number */
  uint64_t read_ns;      /* nanoseconds of all threads together: reading W and operands, */
  uint64_t kernel_ns;    /* computing, */
  uint64_t write_ns;     /* writing what was computed, */
  uint64_t copy_ns;      /* and copying what does not change */
  uint64_t bytes_cloned; /* of these, shared with the source by the file system */
} portllm_control;

/*
 * Writes outputs, whose files have their sizes already: pread, kernel, pwrite in tiles, `threads` (1 to 1024) tiles at a
 * time; memory is threads x tile whatever the size of the files. All segments are checked before the first byte is
 * written. Syncs nothing. `figures` is a portllm_keep. With PORTLLM_CUDA, tensors that it cannot merge are merged by the
 * processor.
 */
PORTLLM_EXPORT int32_t portllm_write_segments(const portllm_output *outputs, uint64_t count,
                                              const portllm_operand *operands,
                                              uint64_t operand_count, int32_t path, uint32_t threads,
                                              int32_t figures, portllm_control *control, char *message,
                                              size_t message_size);

/*
 * Starts the CUDA helper (core/cuda), a process that computes on this machine's GPUs, or starts it anew where one runs
 * already. `devices` receives one sentence that names the GPUs. PORTLLM_UNSUPPORTED where there is no usable GPU or
 * driver. The helper ends with this process.
 */
PORTLLM_EXPORT int32_t portllm_cuda_start(const char *helper, char *devices, size_t devices_size,
                                          char *message, size_t message_size);

/* memcpy of `bytes` split over `threads` threads: the roofline's memory side, for bench/. */
PORTLLM_EXPORT void portllm_copy_memory(void *out, const void *in, uint64_t bytes, uint32_t threads);

/* Fused multiply-adds per second of `threads` threads on this path, measured for about 50 ms: its other side. */
PORTLLM_EXPORT double portllm_fma_rate(int32_t path, uint32_t threads);

#ifdef __cplusplus
}
#endif
#endif
