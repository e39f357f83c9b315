#pragma once

namespace portllm::cuda {

// Measures each GPU and prints one JSON object: copies within its memory and over the bus, the kernels on rows that lie
// there, and lanes that stream. Returns the process's exit code. `rows` x `cols` bf16 elements (256 MiB or so), medians of `repeats`.
int measure_throughput(long rows, long cols, long repeats);

}  // namespace portllm::cuda
