// What the replaying programs read and write: words are 64-bit little-endian; a blob is its length, then its bytes up to a
// multiple of 8. recording.ts writes and reads them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "portllm_core.h"

inline std::string input;
inline size_t at = 0;
inline char message[512];

inline void read_input() {
  char buffer[65536];
  while (const size_t got = std::fread(buffer, 1, sizeof buffer, stdin)) input.append(buffer, got);
}

inline void check(int32_t status) {
  if (status == PORTLLM_OK) return;
  std::fprintf(stderr, "status %d: %s\n", status, message);
  std::exit(1);
}

inline uint64_t word() {
  uint64_t value;
  if (at + 8 > input.size()) std::exit(2);
  std::memcpy(&value, input.data() + at, 8);
  at += 8;
  return value;
}

inline double real() {
  const uint64_t bits = word();
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

inline portllm_bytes blob() {
  const uint64_t size = word();
  if (at + size > input.size()) std::exit(2);
  const portllm_bytes bytes{input.data() + at, size};
  at += (size + 7) / 8 * 8;
  return bytes;
}

inline portllm_matrix matrix() {
  const portllm_bytes bytes = blob();
  const uint64_t dtype = word(), offset = word(), row_stride = word(), col_stride = word();
  return {bytes.bytes, bytes.size, offset, row_stride, col_stride, static_cast<int32_t>(dtype)};
}

inline void put(const void *bytes, size_t size) { std::fwrite(bytes, 1, size, stdout); }

inline void put_blob(const void *bytes, uint64_t size) {
  static constexpr char kZeros[8] = {};
  put(&size, 8);
  put(bytes, size);
  put(kZeros, -size & 7);
}
