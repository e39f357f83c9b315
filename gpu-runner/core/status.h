// Refusals inside the core: thrown as Failure, turned into a status and a sentence at the C interface.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "portllm_core.h"

namespace portllm {

struct Failure {
  int32_t status;
  std::string message;
};

[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(int32_t status, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Failure{status, text};
}

// Runs `body` so that no exception crosses the C interface.
template <class Body>
int32_t guarded(char *message, size_t message_size, Body body) {
  const auto report = [&](int32_t status, const char *text) {
    if (message && message_size) std::snprintf(message, message_size, "%s", text);
    return status;
  };
  try {
    body();
    return report(PORTLLM_OK, "");
  } catch (const Failure &failure) {
    return report(failure.status, failure.message.c_str());
  } catch (const std::bad_alloc &) {
    return report(PORTLLM_MEMORY, "out of memory");
  } catch (const std::system_error &error) {
    return report(PORTLLM_MEMORY, error.what());
  } catch (...) {
    return report(PORTLLM_INVALID, "unexpected error in the merge core");
  }
}

}  // namespace portllm
