// What the binding.cpp of each op adds to the module.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "isa.h"
#include "threads.h"

namespace penstock {

// How a tensor's memory crosses from Python.
template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Every binding runs its kernel through this: without the interpreter's lock, one at a time.
template <class Args>
void launch(void (*kernel)(const Args&), const Args& args) {
  nanobind::gil_scoped_release released;
  Exclusive alone;
  kernel(args);
}

void bind_kv_cache(nanobind::module_& m);
void bind_limits(nanobind::module_& m);
void bind_linear(nanobind::module_& m);
void bind_norm(nanobind::module_& m);
void bind_paged_attention(nanobind::module_& m);
void bind_rope_write_kv(nanobind::module_& m);

}  // namespace penstock
