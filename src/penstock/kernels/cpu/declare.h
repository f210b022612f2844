// How a header says that a function exists once per instruction set.
#pragma once

#define PENSTOCK_FOR_EACH_ISA(declaration) \
  namespace avx2 {                         \
  declaration;                             \
  }                                        \
  namespace avx_vnni {                     \
  declaration;                             \
  }                                        \
  namespace avx512 {                       \
  declaration;                             \
  }                                        \
  namespace avx512_vnni {                  \
  declaration;                             \
  }                                        \
  namespace amx {                          \
  declaration;                             \
  }
