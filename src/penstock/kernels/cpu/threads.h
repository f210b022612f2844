// One persistent pool of threads for all kernels of the process.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

// Threads that compute, the caller's included. At least 1. Not while a kernel runs.
void set_num_threads(int count);
int num_threads();

// Call task(context, index) for every index below count, on all threads; returns when all are done.
// Tasks must not depend on each other, and none may start another parallel region.
void run_parallel(int64_t count, void (*task)(void* context, int64_t index), void* context);

// The same for a callable: parallel(n, [&](int64_t index) { ... }).
// Inlined by force, so that no copy of it compiled for one instruction set serves another.
template <class Task>
[[gnu::always_inline]] inline void parallel(int64_t count, Task&& task) {
  run_parallel(
      count, [](void* context, int64_t index) { (*static_cast<Task*>(context))(index); }, &task);
}

// Memory that lives as long as the process, 64-byte aligned, at least so large; contents are lost
// from call to call. Each number is a buffer of its own; a kernel may use several at a time. Only
// for the thread that entered the kernel; hand out parts of it to tasks.
inline constexpr int kScratchBuffers = 8;
void* scratch(int number, size_t bytes);

// What a binding holds while kernels run: kernels of other Python threads wait for it.
class Exclusive {
 public:
  Exclusive();
  ~Exclusive();
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;
};

}  // namespace penstock
