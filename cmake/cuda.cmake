# AFFUSE_CUDA=auto|on|off. The CUDA backend will be a separate library (libaffuse_cuda) that the runtime opens beside the
# addon; this version has none, so auto and off build the CPU alone and on says why it cannot be had.
set(AFFUSE_CUDA auto CACHE STRING "CUDA backend: auto, on or off")
set_property(CACHE AFFUSE_CUDA PROPERTY STRINGS auto on off)
string(TOLOWER "${AFFUSE_CUDA}" affuse_cuda)
if(NOT affuse_cuda MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "AFFUSE_CUDA is auto, on or off; got \"${AFFUSE_CUDA}\"")
endif()
if(affuse_cuda STREQUAL "on")
  message(FATAL_ERROR "AFFUSE_CUDA=on, but affuse ${PROJECT_VERSION} has no CUDA backend yet. Configure with AFFUSE_CUDA=auto or off.")
endif()
