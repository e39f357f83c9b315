// No fuzz target: breaks one rule for each input, to show that breaking it ends a run.
#include <cstdint>
#include <cstdlib>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size != 1) return 0;
  volatile int32_t large = INT32_MAX;
  volatile char sink = 0;
  static void *volatile kept;
  char *volatile null = nullptr;
  switch (data[0]) {
    case 'a': sink = static_cast<char>(data[size]); break;                                             // one byte beyond the input
    case 'u': large = large + 1; break;                                                                // a signed overflow
    case 's': sink = static_cast<char>(1 << (large >> 25)); break;                                     // a shift beyond the type
    case 'n': kept = null + large; break;                                                              // arithmetic on a null pointer
    case 'v': sink = static_cast<char>(std::vector<int>(3)[static_cast<size_t>(large)]); break;        // an index beyond the vector
    case 'm': kept = std::malloc(200u << 20); break;                                                   // more memory at once than any target may take
    case 'l': kept = std::malloc(10); kept = nullptr; break;                                           // a leak
  }
  return sink == 1 ? 0 : 0;
}
