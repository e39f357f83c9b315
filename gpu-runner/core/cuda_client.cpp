#include "cuda_client.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>

#include "parallel.h"
#include "status.h"
#include "tensor.h"

#if defined(__linux__)
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace portllm {
namespace {

// The driver wakes up in seconds, on a machine of many GPUs in tens of them; a slot takes milliseconds.
constexpr int kHelloSeconds = 120;
constexpr int kAnswerSeconds = 120;
// Less than this is not worth a lane of its own.
constexpr uint64_t kBandBytes = 256u << 10;

std::mutex current_mutex;
std::shared_ptr<CudaHelper> current;
std::atomic<uint64_t> next_tensor{1};

}  // namespace

#if defined(__linux__)

namespace {

class File {
 public:
  explicit File(int number = -1) : number_(number) {}
  ~File() {
    if (number_ >= 0) close(number_);
  }
  File(File &&other) noexcept : number_(other.number_) { other.number_ = -1; }
  File &operator=(File &&other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }

 private:
  int number_;
};

[[noreturn]] void fail_errno(const char *what) { fail(PORTLLM_DEVICE, "the CUDA helper cannot be started: %s: %s", what, std::strerror(errno)); }

// Above the numbers that the helper's files get, so that dup2 overwrites none that is still to be copied.
File above(int number) {
  const File low(number);
  const int high = fcntl(number, F_DUPFD_CLOEXEC, kCudaLaneFile + static_cast<int>(kCudaLanes));
  if (high < 0) fail_errno("fcntl");
  return File(high);
}

}  // namespace

class CudaHelper {
 public:
  explicit CudaHelper(const char *program) {
    File memory = above(memfd_create("portllm-cuda", MFD_CLOEXEC));
    if (ftruncate(memory.number(), static_cast<off_t>(kCudaLanes * kCudaSlotStride))) fail_errno("ftruncate");
    void *mapped = mmap(nullptr, kCudaLanes * kCudaSlotStride, PROT_READ | PROT_WRITE, MAP_SHARED, memory.number(), 0);
    if (mapped == MAP_FAILED) fail_errno("mmap");
    memory_ = static_cast<uint8_t *>(mapped);
    try {
      spawn(program, memory);
      hello();
    } catch (...) {
      end();
      throw;
    }
  }

  ~CudaHelper() { end(); }

  uint8_t *slot(uint32_t lane) const { return memory_ + lane * kCudaSlotStride; }
  uint32_t lanes() const { return lanes_; }
  uint32_t devices() const { return devices_; }
  const std::string &description() const { return description_; }

  bool running() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return broken_.empty();
  }

  uint32_t take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty() || !broken_.empty(); });
    if (!broken_.empty()) fail(PORTLLM_DEVICE, "%s", broken_.c_str());
    const uint32_t lane = free_.front();
    free_.pop_front();
    return lane;
  }

  void give_back(uint32_t lane) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(lane);
    changed_.notify_one();
  }

  // Asks and waits. An answer that is no success is thrown; one that says that the GPU failed ends the helper's use.
  CudaAnswer ask(uint32_t lane, const CudaRequest &request, int seconds = kAnswerSeconds) {
    CudaAnswer answer{};
    const int file = sockets_[lane].number();
    if (send(file, &request, sizeof request, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof request)) broke(ended());
    for (size_t got = 0; got < sizeof answer;) {
      pollfd waiting{file, POLLIN, 0};
      const int ready = poll(&waiting, 1, seconds * 1000);
      if (ready < 0 && errno == EINTR) continue;
      if (ready == 0) broke("the CUDA helper has not answered for " + std::to_string(seconds) + " s");
      const ssize_t part = recv(file, reinterpret_cast<uint8_t *>(&answer) + got, sizeof answer - got, 0);
      if (part < 0 && errno == EINTR) continue;
      if (part <= 0) broke(ended());
      got += static_cast<size_t>(part);
    }
    answer.text[sizeof answer.text - 1] = 0;
    if (answer.status == PORTLLM_DEVICE) broke(answer.text);
    if (answer.status != PORTLLM_OK) fail(answer.status, "%s", answer.text);
    return answer;
  }

  // Factors that nobody needs any more are freed by the next lane that works on their GPU: freeing must not wait.
  void forget(uint64_t tensor, uint32_t device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    forgotten_[device].push_back(tensor);
  }

  void free_forgotten(uint32_t lane) {
    std::vector<uint64_t> tensors;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      tensors.swap(forgotten_[lane % devices_]);
    }
    for (const uint64_t tensor : tensors) {
      CudaRequest request{};
      request.kind = CudaRequestKind::kClose;
      request.tensor = tensor;
      ask(lane, request);
    }
  }

 private:
  void spawn(const char *program, const File &memory) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const std::unique_ptr<posix_spawn_file_actions_t, int (*)(posix_spawn_file_actions_t *)> owner(&actions, posix_spawn_file_actions_destroy);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, 2, 1);
    posix_spawn_file_actions_adddup2(&actions, 2, 2);  // Node has its standard files closed in children
    posix_spawn_file_actions_adddup2(&actions, memory.number(), kCudaMemoryFile);
    std::vector<File> theirs;
    for (uint32_t lane = 0; lane < kCudaLanes; lane++) {
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) fail_errno("socketpair");
      File mine(pair[0]);
      theirs.push_back(above(pair[1]));
      sockets_.push_back(std::move(mine));
      posix_spawn_file_actions_adddup2(&actions, theirs.back().number(), kCudaLaneFile + static_cast<int>(lane));
    }
    char serve[] = "serve";
    std::string name(program);
    char *arguments[] = {name.data(), serve, nullptr};
    const int error = posix_spawn(&process_, program, &actions, nullptr, arguments, environ);
    if (error) {
      process_ = 0;
      fail(PORTLLM_UNSUPPORTED, "the CUDA helper %s cannot be started: %s", program, std::strerror(error));
    }
  }

  void hello() {
    CudaRequest request{};
    request.kind = CudaRequestKind::kHello;
    const CudaAnswer answer = ask(0, request, kHelloSeconds);
    if (answer.protocol != kCudaProtocol || answer.lanes == 0 || answer.lanes > kCudaLanes || answer.devices == 0) {
      fail(PORTLLM_UNSUPPORTED, "the CUDA helper is of another version: build it again (npm run build:cuda)");
    }
    lanes_ = answer.lanes;
    devices_ = answer.devices;
    description_ = answer.text;
    forgotten_.resize(devices_);
    for (uint32_t lane = 0; lane < lanes_; lane++) free_.push_back(lane);
  }

  [[noreturn]] void broke(const std::string &why) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (broken_.empty()) broken_ = why;
      changed_.notify_all();
    }
    fail(PORTLLM_DEVICE, "%s", why.c_str());
  }

  std::string ended() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!broken_.empty()) return broken_;
    // Its sockets close before it can be waited for.
    int status = 0;
    for (int tries = 0; process_ > 0 && tries < 100; tries++) {
      const pid_t waited = waitpid(process_, &status, WNOHANG);
      if (waited == process_ || (waited < 0 && errno == ECHILD)) {
        process_ = 0;
        break;
      }
      usleep(10000);
    }
    const std::string how = WIFSIGNALED(status) ? "by signal " + std::to_string(WTERMSIG(status)) : "with exit code " + std::to_string(WEXITSTATUS(status));
    return "the CUDA helper has ended " + how;
  }

  void end() {
    sockets_.clear();
    if (process_ > 0) {
      kill(process_, SIGKILL);
      while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    munmap(memory_, kCudaLanes * kCudaSlotStride);
  }

  uint8_t *memory_ = nullptr;
  std::vector<File> sockets_;
  pid_t process_ = 0;
  uint32_t lanes_ = 0, devices_ = 0;
  std::string description_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<uint32_t> free_;
  std::vector<std::vector<uint64_t>> forgotten_;
  std::string broken_;
};

#else

class CudaHelper {
 public:
  explicit CudaHelper(const char *) { fail(PORTLLM_UNSUPPORTED, "the CUDA path needs Linux"); }
  uint8_t *slot(uint32_t) const { return nullptr; }
  uint32_t lanes() const { return 0; }
  uint32_t devices() const { return 0; }
  std::string description() const { return ""; }
  bool running() { return false; }
  uint32_t take() { return 0; }
  void give_back(uint32_t) {}
  CudaAnswer ask(uint32_t, const CudaRequest &) { return {}; }
  void forget(uint64_t, uint32_t) {}
  void free_forgotten(uint32_t) {}
};

#endif

std::shared_ptr<CudaHelper> cuda_helper() {
  const std::lock_guard<std::mutex> lock(current_mutex);
  if (!current) fail(PORTLLM_UNSUPPORTED, "the CUDA helper has not been started");
  return current;
}

bool cuda_running() {
  const std::lock_guard<std::mutex> lock(current_mutex);
  return current && current->running();
}

uint32_t cuda_lanes(const CudaHelper &helper) { return helper.lanes(); }

CudaFactors::~CudaFactors() {
  if (const std::shared_ptr<CudaHelper> helper = helper_.lock()) {
    for (uint32_t device = 0; device < on_device_.size(); device++) {
      if (on_device_[device]) helper->forget(id_, device);
    }
  }
}

CudaLane::CudaLane(std::shared_ptr<CudaHelper> helper, portllm_tensor &tensor) : helper_(std::move(helper)), tensor_(tensor), lane_(helper_->take()) {
  try {
    helper_->free_forgotten(lane_);
    place_factors();
  } catch (...) {
    helper_->give_back(lane_);
    throw;
  }
}
CudaLane::~CudaLane() { helper_->give_back(lane_); }
uint8_t *CudaLane::memory() const { return helper_->slot(lane_); }

void CudaLane::place_factors() {
  portllm_tensor &tensor = tensor_;
  CudaFactors &factors = tensor.cuda;
  const std::lock_guard<std::mutex> lock(factors.mutex_);
  if (factors.helper_.lock() != helper_) {
    factors.helper_ = helper_;
    factors.id_ = next_tensor++;
    factors.on_device_.assign(helper_->devices(), false);
  }
  const uint32_t device = lane_ % helper_->devices();
  if (factors.on_device_[device]) return;

  // The products first, then left and right of each; all are whole float4.
  const auto vectors = [](uint64_t bytes) { return (bytes + 15) / 16; };
  std::vector<CudaProduct> products;
  uint64_t at = vectors(tensor.products.size() * sizeof(CudaProduct));
  const uint64_t rows = rounded_up(tensor.rows, kTileRows), cols = rounded_up(tensor.cols, kTileCols);
  for (const PackedProduct &product : tensor.products) {
    const uint64_t left = at, right = left + vectors(rows * product.rank * sizeof(float));
    at = right + vectors(cols * product.rank * sizeof(float));
    products.push_back({left, right, static_cast<uint32_t>(product.rank), product.scale});
  }
  CudaRequest request{};
  request.kind = CudaRequestKind::kOpen;
  request.tensor = factors.id_;
  request.bytes = at * 16;
  helper_->ask(lane_, request);
  factors.on_device_[device] = true;

  request.kind = CudaRequestKind::kFill;
  const auto fill = [&](uint64_t offset, const void *from, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += request.bytes) {
      request.bytes = std::min(bytes - done, kCudaSlotBytes);
      request.offset = offset + done;
      std::memcpy(memory(), static_cast<const uint8_t *>(from) + done, request.bytes);
      helper_->ask(lane_, request);
    }
  };
  fill(0, products.data(), products.size() * sizeof(CudaProduct));
  for (size_t p = 0; p < products.size(); p++) {
    fill(products[p].left * 16, tensor.products[p].left, rows * products[p].rank * sizeof(float));
    fill(products[p].right * 16, tensor.products[p].right, cols * products[p].rank * sizeof(float));
  }
}

void CudaLane::merge(int32_t kept, uint64_t first_row, uint64_t row_count) {
  portllm_tensor &tensor = tensor_;
  CudaRequest request{};
  request.kind = CudaRequestKind::kMerge;
  request.dtype = tensor.dtype;
  request.tensor = tensor.cuda.id_;
  request.rows = tensor.rows;
  request.cols = tensor.cols;
  request.first_row = first_row;
  request.row_count = row_count;
  request.products = static_cast<uint32_t>(tensor.products.size());
  request.figures = kept != PORTLLM_KEEP_NOTHING ? 1 : 0;
  helper_->ask(lane_, request);
  if (kept == PORTLLM_KEEP_NOTHING) return;
  const uint8_t *from = memory() + kCudaSlotBytes;
  for (uint64_t i = 0; i < row_count; i++) {
    CudaRowFigures row;
    std::memcpy(&row, from + i * sizeof row, sizeof row);
    if (kept == PORTLLM_KEEP_COUNT) row.patch = row.realised = row.residual = 0;
    tensor.figures[first_row + i] = {row.patch, row.realised, row.residual, row.non_finite};
  }
}

uint64_t cuda_rows(const portllm_tensor &tensor) {
  if (tensor.steps.size() != 1 || tensor.steps[0].kind != Step::kProducts) return 0;
  return std::min(kCudaSlotRows, kCudaSlotBytes / tensor.row_bytes);
}

void cuda_merge(portllm_tensor &tensor, int32_t kept, uint64_t first_row, uint64_t row_count, const uint8_t *w, uint8_t *out) {
  const std::shared_ptr<CudaHelper> helper = cuda_helper();
  const uint64_t most = cuda_rows(tensor);
  const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(helper->lanes(), row_count * tensor.row_bytes / kBandBytes));
  const uint64_t rows = std::min(most, (row_count + wanted - 1) / wanted), bands = (row_count + rows - 1) / rows;
  std::atomic<uint64_t> next{0};
  parallel(std::min<uint64_t>(wanted, bands), [&](uint64_t) {
    for (uint64_t band; (band = next++) < bands;) {
      const uint64_t from = band * rows, count = std::min(rows, row_count - from), offset = from * tensor.row_bytes;
      CudaLane lane(helper, tensor);
      std::memcpy(lane.memory(), w + offset, count * tensor.row_bytes);
      lane.merge(kept, first_row + from, count);
      std::memcpy(out + offset, lane.memory(), count * tensor.row_bytes);
    }
  });
}

}  // namespace portllm

using namespace portllm;

extern "C" int32_t portllm_cuda_start(const char *helper, char *devices, size_t devices_size, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!helper) fail(PORTLLM_INVALID, "the helper's path is null");
    auto started = std::make_shared<CudaHelper>(helper);
    if (devices && devices_size) std::snprintf(devices, devices_size, "%s", started->description().c_str());
    const std::lock_guard<std::mutex> lock(current_mutex);
    current = std::move(started);
  });
}
