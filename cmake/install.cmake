# cmake --install: header, libraries and a package that `find_package(affuse)` finds.
include(CMakePackageConfigHelpers)
install(TARGETS ${core_targets} EXPORT affuse-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_SOURCE_DIR}/native/include/affuse/affuse.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/affuse)
install(EXPORT affuse-targets NAMESPACE affuse:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/affuse)
file(WRITE ${PROJECT_BINARY_DIR}/generated/affuse-config.cmake
"include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\${CMAKE_CURRENT_LIST_DIR}/affuse-targets.cmake)
")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/affuse-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/affuse-config.cmake ${PROJECT_BINARY_DIR}/generated/affuse-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/affuse)
