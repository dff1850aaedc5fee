# affuse.node: a thin layer of Node-API over libaffuse. cmake-js passes its headers in CMAKE_JS_INC; without it they come
# from node_modules.
set(AFFUSE_NODE_INCLUDES "${CMAKE_JS_INC}")
if(NOT AFFUSE_NODE_INCLUDES)
  find_program(AFFUSE_NODE NAMES node nodejs)
  # Resolved by Node itself so that hoisted packages are found too; Node's own headers are the fallback.
  execute_process(
    COMMAND ${AFFUSE_NODE} -e "
      const path = require('path');
      let file;
      try { file = path.join(path.dirname(require.resolve('node-api-headers/package.json')), 'include'); }
      catch { file = path.join(path.dirname(path.dirname(process.execPath)), 'include/node'); }
      process.stdout.write(file);"
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE AFFUSE_NODE_INCLUDES)
endif()
find_path(AFFUSE_NODE_API_HEADER node_api.h PATHS ${AFFUSE_NODE_INCLUDES} NO_DEFAULT_PATH)
if(NOT AFFUSE_NODE_API_HEADER)
  message(FATAL_ERROR "affuse.node needs Node's headers (looked in: ${AFFUSE_NODE_INCLUDES}). Run npm install first, or "
    "configure with -DAFFUSE_ADDON=OFF for the library alone.")
endif()

file(GLOB addon_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/native/addon/*.cc)
add_library(affuse_node MODULE ${addon_sources})
affuse_compile(affuse_node)
affuse_link(affuse_node)
target_include_directories(affuse_node SYSTEM PRIVATE ${AFFUSE_NODE_API_HEADER})
target_compile_definitions(affuse_node PRIVATE NAPI_VERSION=8 AFFUSE_VERSION="${PROJECT_VERSION}")
target_link_libraries(affuse_node PRIVATE affuse)
# Linked in a private place and then moved, so that a process that loads the addon meanwhile sees the old file or the new
# one, never half of one. cmake-js names the destination; scripts/build-native.mjs takes the private file itself.
set_target_properties(affuse_node PROPERTIES PREFIX "" SUFFIX ".node" OUTPUT_NAME affuse
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/addon)
if(CMAKE_JS_VERSION AND CMAKE_LIBRARY_OUTPUT_DIRECTORY)
  set(addon_destination ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/affuse.node)
  add_custom_command(TARGET affuse_node POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}
    COMMAND ${CMAKE_COMMAND} -E copy $<TARGET_FILE:affuse_node> ${addon_destination}.new
    COMMAND ${CMAKE_COMMAND} -E rename ${addon_destination}.new ${addon_destination}
    VERBATIM)
endif()
# The symbol table stays in release builds: `perf report` names kernels by it, and it is loaded by nobody else.
