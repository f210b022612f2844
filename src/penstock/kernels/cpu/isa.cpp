#include "isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <stdexcept>

namespace penstock {
namespace {

struct Registers {
  unsigned a, b, c, d;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r{};
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bit(unsigned word, int number) { return (word >> number) & 1; }

// What the operating system saves on a context switch (XCR0).
unsigned long long saved_state() {
  if (!bit(cpuid(1, 0).c, 27)) return 0;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux hands out tile registers on request only.
bool tiles_granted() {
  constexpr long kRequest = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

struct Features {
  bool avx2, avx_vnni, avx512, avx512_vnni, amx;
};

Features detect() {
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
  const auto saved = saved_state();
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
  const bool tiles = (saved & 0x60000) == 0x60000;
  Features f{};
  f.avx2 = ymm && bit(one.c, 12) && bit(one.c, 29) && bit(seven.b, 5);
  f.avx_vnni = f.avx2 && bit(more.a, 4);
  f.avx512 = f.avx2 && zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) &&
             bit(seven.b, 31);
  f.avx512_vnni = f.avx512 && bit(seven.c, 11);
  f.amx = f.avx512_vnni && tiles && bit(seven.d, 24) && bit(seven.d, 25) && tiles_granted();
  return f;
}

// Built and runnable here, slowest first.
std::vector<const Kernels*> find_usable() {
  [[maybe_unused]] Features f = detect();
#ifdef PENSTOCK_EMULATE
  f.avx_vnni = f.avx512 = f.avx512_vnni = f.amx = f.avx2;
#endif
  std::vector<const Kernels*> found;
#ifdef PENSTOCK_HAS_avx2
  if (f.avx2) found.push_back(&avx2::kernels);
#endif
#ifdef PENSTOCK_HAS_avx_vnni
  if (f.avx_vnni) found.push_back(&avx_vnni::kernels);
#endif
#ifdef PENSTOCK_HAS_avx512
  if (f.avx512) found.push_back(&avx512::kernels);
#endif
#ifdef PENSTOCK_HAS_avx512_vnni
  if (f.avx512_vnni) found.push_back(&avx512_vnni::kernels);
#endif
#ifdef PENSTOCK_HAS_amx
  if (f.amx) found.push_back(&amx::kernels);
#endif
  return found;
}

const std::vector<const Kernels*>& usable() {
  static const std::vector<const Kernels*> found = find_usable();
  return found;
}

const Kernels* in_use = nullptr;

}  // namespace

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const Kernels* each : usable()) names.emplace_back(each->isa);
  return names;
}

void use_isa(const std::string& name) {
  for (const Kernels* each : usable()) {
    if (name == each->isa) {
      in_use = each;
      return;
    }
  }
  throw std::invalid_argument("instruction set " + name + " is not usable here");
}

const Kernels& kernels() {
  if (!in_use) {
    if (usable().empty()) throw std::runtime_error("no kernels were built for this processor");
    in_use = usable().back();
  }
  return *in_use;
}

}  // namespace penstock
