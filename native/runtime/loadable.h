// Whether a file can be given to dlopen(), which maps what the file's headers promise: of a file that ends before that, the
// first page touched ends the process with SIGBUS.
#pragma once
#include <string>

namespace affuse {

// What keeps the file from being a shared object of this machine, whole as its headers tell, or nullptr. A path without a
// slash is one that the loader searches for, and a file that cannot be opened one that the loader says more about: both
// nullptr. Where libraries are no ELF files always nullptr.
const char* why_not_loadable(const std::string& path);

}  // namespace affuse
