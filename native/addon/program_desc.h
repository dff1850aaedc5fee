#pragma once
#include "convert.h"
#include "native/runtime/program.h"

namespace affuse::addon {

// ProgramDesc (lib/native/addon.ts) → ProgramSpec. Program::create checks what is in it; this checks that it is one.
ProgramSpec read_program(napi_env env, napi_value desc);

}  // namespace affuse::addon
