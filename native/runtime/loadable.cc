#include "loadable.h"

#ifdef __ELF__
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstring>
#endif

namespace affuse {

#ifdef __ELF__
namespace {

#if defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
#else
constexpr int kMachine = EM_NONE;  // the loader compares it
#endif
constexpr int kClass = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
constexpr int kByteOrder = std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;

// size bytes at `from` of the file lie within it.
bool within(uint64_t from, uint64_t size, uint64_t file) { return from <= file && size <= file - from; }

bool read_all(int file, void* to, size_t bytes, uint64_t from) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = pread(file, static_cast<char*>(to) + done, bytes - done, off_t(from + done));
    if (n <= 0) return false;
    done += size_t(n);
  }
  return true;
}

const char* examine(int file) {
  static constexpr const char* kShort = "a file that ends before its headers say, as if it had been copied in part";
  struct stat info;
  if (fstat(file, &info) || !S_ISREG(info.st_mode)) return "what is no regular file";
  const uint64_t size = uint64_t(info.st_size);
  ElfW(Ehdr) header;
  char magic[SELFMAG];
  if (!read_all(file, magic, sizeof magic, 0) || memcmp(magic, ELFMAG, SELFMAG)) return "a file that is no library";
  if (!read_all(file, &header, sizeof header, 0)) return kShort;
  if (header.e_ident[EI_CLASS] != kClass || header.e_ident[EI_DATA] != kByteOrder ||
      (kMachine != EM_NONE && header.e_machine != kMachine))
    return "a library for another machine";
  if (header.e_type != ET_DYN || header.e_phentsize != sizeof(ElfW(Phdr))) return "a file that is no library";
  if (!within(header.e_phoff, uint64_t(header.e_phnum) * sizeof(ElfW(Phdr)), size)) return kShort;
  // The sections are what comes last. Nothing maps them, and a library may have lost them.
  if (header.e_shoff && !within(header.e_shoff, uint64_t(header.e_shnum) * header.e_shentsize, size)) return kShort;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    if (!read_all(file, &segment, sizeof segment, header.e_phoff + i * sizeof segment)) return kShort;
    if (segment.p_type == PT_LOAD && !within(segment.p_offset, segment.p_filesz, size)) return kShort;
  }
  return nullptr;
}

}  // namespace

const char* why_not_loadable(const std::string& path) {
  if (path.find('/') == std::string::npos) return nullptr;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for a writer
  if (file < 0) return nullptr;
  const char* const reason = examine(file);
  close(file);
  return reason;
}

#else

const char* why_not_loadable(const std::string&) { return nullptr; }

#endif

}  // namespace affuse
