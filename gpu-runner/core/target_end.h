#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef PORTLLM_PUSH
#undef PORTLLM_PRAGMA
#undef PORTLLM_TARGET
