// Runs `body(0) … body(count - 1)` at once, the first on the calling thread; the rest run here too where
// the system gives no more threads. An exception of any of them is thrown again once all have ended.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace portllm {

template <class Body>
void parallel(uint64_t count, Body body) {
  std::exception_ptr first;
  std::mutex mutex;
  const auto run = [&](uint64_t index) {
    try {
      body(index);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!first) first = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(count);
  uint64_t started = 1;
  for (; started < count; started++) {
    try {
      threads.emplace_back(run, started);
    } catch (const std::system_error &) {
      break;
    }
  }
  run(0);
  for (; started < count; started++) run(started);
  for (std::thread &thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace portllm
