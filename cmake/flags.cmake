# Compiler flags shared by every target, and the sanitizer switch.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  message(FATAL_ERROR "affuse needs g++ >= 11 or clang++ >= 14; found ${CMAKE_CXX_COMPILER_ID}")
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 11)
  message(FATAL_ERROR "affuse needs g++ >= 11; found ${CMAKE_CXX_COMPILER_VERSION}")
endif()

set(AFFUSE_SANITIZE_FLAGS "")
if(AFFUSE_SANITIZE)
  string(REPLACE "," ";" sanitizers "${AFFUSE_SANITIZE}")
  foreach(sanitizer ${sanitizers})
    if(NOT sanitizer MATCHES "^(address|thread|undefined)$")
      message(FATAL_ERROR "AFFUSE_SANITIZE is address, thread or undefined; got \"${sanitizer}\"")
    endif()
  endforeach()
  # float-cast-overflow and float-divide-by-zero are not in "undefined": IEEE arithmetic is what kernels rely on.
  set(AFFUSE_SANITIZE_FLAGS -fsanitize=${AFFUSE_SANITIZE} -fno-omit-frame-pointer -g1)  # lines for reports
  if(AFFUSE_SANITIZE MATCHES "undefined")
    list(APPEND AFFUSE_SANITIZE_FLAGS -fno-sanitize-recover=undefined)
  endif()
endif()

# affuse_compile(target): language level, warnings, visibility; the optimisation level follows from CMAKE_BUILD_TYPE.
function(affuse_compile target)
  set_target_properties(${target} PROPERTIES
    CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/kernels)
  target_compile_options(${target} PRIVATE -Wall -Wextra ${AFFUSE_SANITIZE_FLAGS})
endfunction()

# affuse_link(target): what the final link needs.
function(affuse_link target)
  if(AFFUSE_SANITIZE_FLAGS)
    target_link_options(${target} PUBLIC ${AFFUSE_SANITIZE_FLAGS})
  endif()
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL "STATIC_LIBRARY" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    # nodelete: worker_threads unload addons while finalizers and parked threads may still hold our code.
    # static libstdc++ and libgcc: two addons built by different compilers must not share one of them by accident.
    target_link_options(${target} PRIVATE -Wl,-z,nodelete -Wl,--gc-sections)
  endif()
endfunction()
