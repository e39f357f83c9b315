// Compiles what follows for PORTLLM_TARGET only, up to target_end.h; include no other header between
// the two. The rest of the library stays on the baseline, so it loads on any processor of the family.
#if defined(__clang__)
#define PORTLLM_PRAGMA(x) _Pragma(#x)
#define PORTLLM_PUSH(target_string) \
  PORTLLM_PRAGMA(clang attribute push(__attribute__((target(target_string))), apply_to = function))
PORTLLM_PUSH(PORTLLM_TARGET)
#else
#define PORTLLM_PRAGMA(x) _Pragma(#x)
#define PORTLLM_PUSH(target_string) PORTLLM_PRAGMA(GCC target(target_string))
#pragma GCC push_options
PORTLLM_PUSH(PORTLLM_TARGET)
#endif
