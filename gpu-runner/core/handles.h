// The handles that the core has given out. One that was freed, or never was one, is refused and not followed; and what a
// call works on lives until the call ends, whatever is freed meanwhile.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "status.h"

namespace portllm {

template <class Object>
class Handles {
 public:
  static Object *add(std::shared_ptr<Object> made) {
    Object *handle = made.get();
    Table &table = all();
    const std::lock_guard<std::mutex> lock(table.mutex);
    table.objects.emplace(handle, std::move(made));
    return handle;
  }

  // `what` it should be, for the sentence.
  static std::shared_ptr<Object> get(const Object *handle, const char *what) {
    if (!handle) fail(PORTLLM_INVALID, "the %s is null", what);
    Table &table = all();
    const std::lock_guard<std::mutex> lock(table.mutex);
    const auto found = table.objects.find(handle);
    if (found == table.objects.end()) fail(PORTLLM_INVALID, "the %s is none, or has been freed", what);
    return found->second;
  }

  static void remove(const Object *handle) {
    std::shared_ptr<Object> last;  // destroyed after the lock
    Table &table = all();
    const std::lock_guard<std::mutex> lock(table.mutex);
    const auto found = table.objects.find(handle);
    if (found == table.objects.end()) return;
    last = std::move(found->second);
    table.objects.erase(found);
  }

 private:
  struct Table {
    std::mutex mutex;
    std::unordered_map<const Object *, std::shared_ptr<Object>> objects;
  };

  // Never destroyed: threads may still call when the process ends.
  static Table &all() {
    static Table &table = *new Table;
    return table;
  }
};

}  // namespace portllm
