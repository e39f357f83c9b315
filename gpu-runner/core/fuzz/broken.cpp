// Not a fuzz target: breaks one rule for each input, to show that breaking it ends the process.
#include <cstdint>
#include <cstdlib>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size != 1) return 0;
  volatile int32_t large = INT32_MAX;
  static void *volatile leaked;
  switch (data[0]) {
    case 'a': return data[size] ? 0 : 0;                             // AddressSanitizer: one byte beyond
    case 'u': large = large + 1; return 0;                           // UndefinedBehaviorSanitizer: signed overflow
    case 's': return 1 << (large >> 25) ? 0 : 1;                     // a shift beyond the type
    case 'v': return std::vector<int>(3)[static_cast<size_t>(large)]; // libstdc++'s assertions
    case 'm': leaked = std::malloc(200u << 20); return 0;            // more memory at once than any target may take
    case 'l': leaked = std::malloc(10); leaked = nullptr; return 0;  // LeakSanitizer
  }
  return 0;
}
