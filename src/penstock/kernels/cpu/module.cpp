// The Python module penstock.kernels.cpu._native. Memory crosses as addresses: the callers, in the
// cpu.py of each op, check dtype, shape and contiguity.
#include <malloc.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "isa.h"
#include "threads.h"

namespace nb = nanobind;

namespace penstock {

void bind_recording(nb::module_& m) {
  nb::class_<Recording>(m, "Recording")
      .def(nb::init<>())
      .def("begin", &Recording::begin)
      .def("end", &Recording::end)
      .def("replay", [](const Recording& recording) {
        nb::gil_scoped_release released;
        Exclusive alone;
        recording.replay();
      });
}

}  // namespace penstock

NB_MODULE(_native, m) {
  m.def("usable_isas", &penstock::usable_isas);
  m.def("use_isa", &penstock::use_isa, nb::arg("name"));
  m.def("isa", [] { return std::string(penstock::kernels().isa); });
  m.def("lanes", [] { return penstock::kernels().lanes; });
  m.def("set_num_threads", &penstock::set_num_threads, nb::arg("count"));
  m.def("num_threads", &penstock::num_threads);
  // A step's tensors are megabytes each and gone a moment later. Kept on the heap they are the same
  // pages every time; by default each would be mapped, faulted in and unmapped again.
  m.def("keep_freed_memory", [] {
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
  });
  penstock::bind_embedding(m);
  penstock::bind_experts(m);
  penstock::bind_kv_cache(m);
  penstock::bind_limits(m);
  penstock::bind_linear(m);
  penstock::bind_norm(m);
  penstock::bind_paged_attention(m);
  penstock::bind_recording(m);
  penstock::bind_rope_write_kv(m);
  penstock::bind_sampling(m);
}
