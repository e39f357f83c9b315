// One block of CUDA threads on the CPU: each thread is a fiber, and __syncthreads() goes on with the next one until all
// have come to it.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_shim {

inline long setting(const char *name, long otherwise) {
  const char *value = std::getenv(name);
  return value && *value ? std::atol(value) : otherwise;
}

inline void stop(const char *what) {
  std::fprintf(stderr, "cuda shim: %s\n", what);
  std::abort();
}

// One block at a time and thread of the operating system.
class Block {
 public:
  static inline thread_local Block *current = nullptr;

  Block(unsigned threads, size_t shared_bytes) : fibers_(threads), shared_(shared_bytes) {
    for (Fiber &fiber : fibers_) {
      fiber.stack.reset(new char[kStackBytes]);
      getcontext(&fiber.context);
    }
  }

  void *shared() { return shared_.data(); }

  void run(const std::function<void()> &kernel) {
    kernel_ = &kernel;
    std::fill(shared_.begin(), shared_.end(), static_cast<char>(0xff));
    std::vector<unsigned> order(fibers_.size());
    for (unsigned i = 0; i < order.size(); i++) order[i] = i;
    const char *wanted = std::getenv("CUDA_SHIM_ORDER");
    const std::string name = wanted ? wanted : "forward";
    std::mt19937 random(name == "forward" || name == "reverse" ? 0 : static_cast<unsigned>(std::atol(name.c_str())) + blockIdx.x + 977 * blockIdx.y);
    if (name == "reverse") std::reverse(order.begin(), order.end());
    for (Fiber &fiber : fibers_) {
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = &scheduler_;
      fiber.finished = false;
      makecontext(&fiber.context, &Block::enter, 0);
    }
    Block *outer = std::exchange(current, this);
    for (size_t running = fibers_.size(); running;) {
      if (name != "forward" && name != "reverse") std::shuffle(order.begin(), order.end(), random);
      size_t finished = 0;
      for (const unsigned index : order) {
        active_ = &fibers_[index];
        threadIdx = dim3(index);
        resume();
        finished += active_->finished ? 1 : 0;
      }
      if (finished && finished != running) stop("some threads of a block left before a __syncthreads() of the others");
      running -= finished;
    }
    current = outer;
  }

  void barrier() {
    Fiber &fiber = *active_;
    const dim3 thread = threadIdx;
    leave(&fiber.fake_stack);
    swapcontext(&fiber.context, &scheduler_);
    arrive(fiber.fake_stack);
    threadIdx = thread;
  }

 private:
  static constexpr size_t kStackBytes = 64 * 1024;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool finished;
    void *fake_stack = nullptr;
  };

  static void enter() {
    Block &block = *current;
    block.arrive(nullptr);
    (*block.kernel_)();
    block.active_->finished = true;
    block.leave(nullptr);
  }

  // AddressSanitizer has to be told of each change of stack.
#if defined(__SANITIZE_ADDRESS__)
  void resume() {
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, active_->stack.get(), kStackBytes);
    swapcontext(&scheduler_, &active_->context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
  }
  void leave(void **fake) { __sanitizer_start_switch_fiber(fake, scheduler_stack_, scheduler_stack_size_); }
  void arrive(void *fake) { __sanitizer_finish_switch_fiber(fake, &scheduler_stack_, &scheduler_stack_size_); }
  const void *scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
#else
  void resume() { swapcontext(&scheduler_, &active_->context); }
  void leave(void **) {}
  void arrive(void *) {}
#endif

  std::vector<Fiber> fibers_;
  std::vector<char> shared_;
  ucontext_t scheduler_;
  Fiber *active_ = nullptr;
  const std::function<void()> *kernel_ = nullptr;
};

inline void *shared_memory() { return Block::current->shared(); }

}  // namespace cuda_shim

inline void __syncthreads() { cuda_shim::Block::current->barrier(); }
