// mmap behind RAII; see the header.
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace supersonic::io {

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int error = errno;
    fail(ErrorKind::bad_file, "{}: cannot open: {}{}", path, std::strerror(error),
         error == ENOENT   ? "; check the path"
         : error == EACCES ? "; check its permissions"
                           : "");
  }
  struct stat info {};
  CHECK_FILE(::fstat(file.fd, &info) == 0, "{}: cannot stat: {}", path, std::strerror(errno));
  CHECK_FILE(!S_ISDIR(info.st_mode), "{}: is a directory, a file was expected", path);
  CHECK_FILE(S_ISREG(info.st_mode), "{}: not a regular file; copy its content to one", path);
  MappedFile result;
  result.path_ = path;
  result.size_ = static_cast<std::size_t>(info.st_size);
  if (result.size_ == 0) return result;
  void* data = ::mmap(nullptr, result.size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    result.size_ = 0;
    fail(error == ENOMEM ? ErrorKind::memory : ErrorKind::bad_file, "{}: cannot map {} bytes: {}",
         path, info.st_size, std::strerror(error));
  }
  result.data_ = static_cast<const std::byte*>(data);
  return result;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

void MappedFile::advise(Access access) const {
  if (!data_) return;
  const int advice = access == Access::sequential  ? MADV_SEQUENTIAL
                     : access == Access::random    ? MADV_RANDOM
                     : access == Access::will_need ? MADV_WILLNEED
                                                   : MADV_NORMAL;
  (void)::madvise(const_cast<std::byte*>(data_), size_, advice);
}

void drop_pages(std::span<const std::byte> range) {
  if (range.empty()) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(range.data());
  // Outwards to whole pages: those of neighbours are of the file, too, and come back when read.
  const std::uintptr_t first = begin / page * page;
  (void)::madvise(reinterpret_cast<void*>(first), begin + range.size() - first, MADV_DONTNEED);
}

}  // namespace supersonic::io
