// What one thread has kernels compute, kept to be computed again at one word.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace penstock {

class Recording {
 public:
  // Keep what this thread computes from now on, until `end`. A thread keeps one recording at a time.
  void begin() { current() = this; }
  void end() { current() = nullptr; }

  void add(std::function<void()> call) { calls_.push_back(std::move(call)); }

  // Compute everything anew, from and to the same addresses.
  void replay() const {
    for (const std::function<void()>& call : calls_) call();
  }

  // Where this thread's kernels are kept; null where nobody asked.
  static Recording*& current() {
    static thread_local Recording* instance = nullptr;
    return instance;
  }

 private:
  std::vector<std::function<void()>> calls_;
};

}  // namespace penstock
