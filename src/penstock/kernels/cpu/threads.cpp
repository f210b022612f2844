#include "threads.h"

#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace penstock {
namespace {

// Spinning this long bridges the gap between two ops of a step; sleeping after it leaves the
// processor to others.
constexpr int kSpinsBeforeSleep = 4000;
constexpr int kSpinsBeforeYield = 2000;

// `state` holds the number of the job (upper half) and how many of its tasks nobody took yet (lower
// half). Whoever lowers the count by compare-and-swap owns a task of that very job, whose fields
// stay as they are until all of its tasks are done. A thread that wakes late finds nothing to take,
// and nobody waits for it.
struct Pool {
  std::vector<std::thread> workers;
  std::atomic<uint64_t> state{0};
  std::atomic<int64_t> done{0};
  std::atomic<uint32_t> bell{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};
  int64_t count = 0;
  void (*task)(void*, int64_t) = nullptr;
  void* context = nullptr;

  bool take_and_run() {
    uint64_t seen = state.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(seen) != 0) {
      if (state.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) {
        task(context, count - static_cast<int64_t>(static_cast<uint32_t>(seen)));
        done.fetch_add(1, std::memory_order_release);
        return true;
      }
    }
    return false;
  }

  void work() {
    int idle = 0;
    while (!stopping.load(std::memory_order_relaxed)) {
      if (take_and_run()) {
        idle = 0;
      } else if (++idle < kSpinsBeforeSleep) {
        _mm_pause();
      } else {
        const uint32_t heard = bell.load();
        sleepers.fetch_add(1);
        if (static_cast<uint32_t>(state.load()) == 0 && !stopping.load()) bell.wait(heard);
        sleepers.fetch_sub(1);
        idle = 0;
      }
    }
  }

  void ring() {
    bell.fetch_add(1);
    if (sleepers.load() != 0) bell.notify_all();
  }

  void stop() {
    stopping.store(true);
    bell.fetch_add(1);
    bell.notify_all();
    for (std::thread& worker : workers) worker.join();
    workers.clear();
    stopping.store(false);
  }

  ~Pool() { stop(); }
};

Pool& pool() {
  static Pool instance;
  return instance;
}

std::mutex& kernel_mutex() {
  static std::mutex instance;
  return instance;
}

struct Buffer {
  void* memory = nullptr;
  size_t bytes = 0;
};

}  // namespace

void set_num_threads(int count) {
  Pool& p = pool();
  p.stop();
  for (int i = 1; i < count; ++i) p.workers.emplace_back([&p] { p.work(); });
}

int num_threads() { return static_cast<int>(pool().workers.size()) + 1; }

void run_parallel(int64_t count, void (*task)(void*, int64_t), void* context) {
  Pool& p = pool();
  if (count <= 1 || p.workers.empty()) {
    for (int64_t index = 0; index < count; ++index) task(context, index);
    return;
  }
  p.count = count;
  p.task = task;
  p.context = context;
  p.done.store(0, std::memory_order_relaxed);
  const uint64_t job = (p.state.load(std::memory_order_relaxed) >> 32) + 1;
  p.state.store(job << 32 | static_cast<uint64_t>(count));
  p.ring();
  while (p.take_and_run()) {
  }
  for (int spins = 0; p.done.load(std::memory_order_acquire) != count; ++spins) {
    if (spins < kSpinsBeforeYield) {
      _mm_pause();
    } else {
      sched_yield();
    }
  }
}

void* scratch(int number, size_t bytes) {
  static Buffer buffers[kScratchBuffers];
  Buffer& buffer = buffers[number];
  if (buffer.bytes < bytes) {
    std::free(buffer.memory);
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.memory = std::aligned_alloc(64, rounded);
    buffer.bytes = buffer.memory ? rounded : 0;
    if (!buffer.memory) throw std::bad_alloc();
  }
  return buffer.memory;
}

Exclusive::Exclusive() { kernel_mutex().lock(); }
Exclusive::~Exclusive() { kernel_mutex().unlock(); }

}  // namespace penstock
