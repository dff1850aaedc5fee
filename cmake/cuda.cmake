# The device libraries that the runtime opens beside the addon when a device is wanted (native/runtime/backends.h):
#
#   libaffuse_cuda       AFFUSE_CUDA=auto|on|off: the rooms' cuda.cu by nvcc. auto: when both nvcc and a GPU are here, so that
#                        nobody waits for kernels that cannot run. AFFUSE_CUDA_ARCHITECTURES: 80-real;90a-real by default,
#                        `release` for all that a release has
#   libaffuse_emulated   AFFUSE_EMULATED=ON|OFF: the same files by the C++ compiler, on the emulator (kernels/common/cuda)
#
# Included after kernels.cmake, which lists device_sources.
set(AFFUSE_CUDA auto CACHE STRING "CUDA backend: auto, on or off")
set_property(CACHE AFFUSE_CUDA PROPERTY STRINGS auto on off)
option(AFFUSE_EMULATED "Build the CUDA kernels for the emulator" OFF)
set(AFFUSE_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "Architectures of libaffuse_cuda")
# Source lines in Nsight Compute and compute-sanitizer; the code is the same, nvcc takes half as long again.
option(AFFUSE_CUDA_LINES "Line numbers in libaffuse_cuda" OFF)

string(TOLOWER "${AFFUSE_CUDA}" affuse_cuda)
if(NOT affuse_cuda MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "AFFUSE_CUDA is auto, on or off; got \"${AFFUSE_CUDA}\"")
endif()
if(affuse_cuda STREQUAL "auto")
  set(affuse_cuda off)
  find_program(AFFUSE_NVCC NAMES nvcc PATHS /usr/local/cuda/bin)
  if(AFFUSE_NVCC AND EXISTS /dev/nvidiactl)
    set(affuse_cuda on)
  endif()
endif()

set(backend_sources ${PROJECT_SOURCE_DIR}/native/backend/backend.cu ${device_sources})
# Beside the addon, in the folder that scripts/build-native.mjs takes both from.
set(backend_folder ${PROJECT_BINARY_DIR}/addon)
# Whichever of them this configuration has.
add_custom_target(affuse_backends)

function(affuse_backend target)
  add_dependencies(affuse_backends ${target})
  set_target_properties(${target} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON LIBRARY_OUTPUT_DIRECTORY ${backend_folder})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/native/backend
    ${PROJECT_BINARY_DIR}/generated)
  target_compile_definitions(${target} PRIVATE AFFUSE_VERSION="${PROJECT_VERSION}")
endfunction()

if(affuse_cuda STREQUAL "on")
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${AFFUSE_CUDA_ARCHITECTURES})
  if(AFFUSE_CUDA_ARCHITECTURES STREQUAL "release")
    # Code for every GPU from 8.0 on that PyTorch runs on, and an intermediate form for those that come after 10.0.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 100-virtual 120-real)
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake does not know that this nvcc has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  add_library(affuse_cuda SHARED ${backend_sources} ${PROJECT_SOURCE_DIR}/kernels/common/status.cc)
  affuse_backend(affuse_cuda)
  set_target_properties(affuse_cuda PROPERTIES CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static
    RULE_LAUNCH_COMPILE ${PROJECT_SOURCE_DIR}/cmake/cuda_usage.sh)
  target_compile_options(affuse_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v --expt-relaxed-constexpr>)
  if(AFFUSE_CUDA_LINES)
    target_compile_options(affuse_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>)
  endif()
  if(AFFUSE_CUDA_ARCHITECTURES STREQUAL "release" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
    # Seven forms of every kernel: a quarter of the size, unpacked by the driver once, when a kernel is first launched.
    target_compile_options(affuse_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-compress-mode=size>)
  endif()
  # static libstdc++ and libgcc, as in the addon
  target_link_options(affuse_cuda PRIVATE -static-libstdc++ -static-libgcc -Wl,-z,nodelete)
  option(AFFUSE_CUDA_UPDATE_BUDGETS "Write kernels/cuda_budgets.txt rather than check it" OFF)
  add_custom_command(TARGET affuse_cuda POST_BUILD
    COMMAND ${CMAKE_COMMAND} -DOBJECTS=${PROJECT_BINARY_DIR}/CMakeFiles/affuse_cuda.dir
      -DBUDGETS=${PROJECT_SOURCE_DIR}/kernels/cuda_budgets.txt -DUPDATE=${AFFUSE_CUDA_UPDATE_BUDGETS}
      -DCOMPILER=${CMAKE_CUDA_COMPILER_VERSION}
      -P ${PROJECT_SOURCE_DIR}/cmake/cuda_budgets.cmake
    VERBATIM)
endif()

if(AFFUSE_EMULATED)
  # Optimised in every build type: the emulator is slow enough. The files are C++ to this compiler.
  add_library(affuse_emulator OBJECT ${PROJECT_SOURCE_DIR}/kernels/common/cuda/emulator.cc)
  set_target_properties(affuse_emulator PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden)
  target_compile_options(affuse_emulator PRIVATE -O2 -Wall -Wextra)
  if(AFFUSE_SANITIZE MATCHES "address")
    target_compile_definitions(affuse_emulator PRIVATE AFFUSE_EMULATOR_ASAN=1)
  elseif(AFFUSE_SANITIZE MATCHES "thread")
    target_compile_definitions(affuse_emulator PRIVATE AFFUSE_EMULATOR_TSAN=1)
  endif()
  set(emulated_sources "")
  foreach(source ${backend_sources})
    file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR} ${source})
    string(REPLACE "/" "_" name ${name})
    # A C++ file that includes it: the same source cannot be CUDA in one target and C++ in another.
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/emulated/${name}.cc CONTENT "#include \"${source}\"\n" @ONLY)
    list(APPEND emulated_sources ${PROJECT_BINARY_DIR}/generated/emulated/${name}.cc)
  endforeach()
  add_library(affuse_emulated SHARED ${emulated_sources} ${PROJECT_SOURCE_DIR}/kernels/common/status.cc
    $<TARGET_OBJECTS:affuse_emulator>)
  affuse_backend(affuse_emulated)
  target_compile_options(affuse_emulated PRIVATE -O1 -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off
    ${AFFUSE_SANITIZE_FLAGS})
  if(AFFUSE_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Checks as calls rather than in line: two thirds of the time to compile, and kernels run for seconds only.
    target_compile_options(affuse_emulated PRIVATE --param asan-instrumentation-with-call-threshold=0)
  endif()
  affuse_link(affuse_emulated)
endif()
