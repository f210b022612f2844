// What the binding.cpp of each op adds to the module.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <utility>

#include "isa.h"
#include "recording.h"
#include "threads.h"

namespace penstock {

// How a tensor's memory crosses from Python.
template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Every binding runs its kernel through this: without the interpreter's lock, one at a time. The call
// must hold all that it needs beside the memory it was given the addresses of, for it may be recorded.
template <class Call>
void run(Call call) {
  {
    nanobind::gil_scoped_release released;
    Exclusive alone;
    call();
  }
  if (Recording* recording = Recording::current()) recording->add(std::move(call));
}

template <class Args>
void launch(void (*kernel)(const Args&), const Args& args) {
  run([kernel, args] { kernel(args); });
}

// Throws IndexError for a row that is not there.
inline void check_ids(const int64_t* ids, int64_t count, int64_t rows, const char* of) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= rows) {
      throw nanobind::index_error(("id " + std::to_string(ids[i]) + " at position " +
                                   std::to_string(i) + " is not in " + of + " of " +
                                   std::to_string(rows) + " rows")
                                      .c_str());
    }
  }
}

void bind_embedding(nanobind::module_& m);
void bind_experts(nanobind::module_& m);
void bind_kv_cache(nanobind::module_& m);
void bind_limits(nanobind::module_& m);
void bind_linear(nanobind::module_& m);
void bind_norm(nanobind::module_& m);
void bind_paged_attention(nanobind::module_& m);
void bind_recording(nanobind::module_& m);
void bind_rope_write_kv(nanobind::module_& m);
void bind_sampling(nanobind::module_& m);

}  // namespace penstock
