// Atomic output: temporary name, buffered writes, fsync, rename, fsync of the directory; see the
// header.
#include "io/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "core/error.h"
#include "io/mapped_file.h"

namespace supersonic::io {

namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 18;

std::string parent_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  const std::filesystem::path p(path);
  return (p.parent_path() /
          fmt::format(".{}.tmp-{}-{}", p.filename().string(), ::getpid(), counter++))
      .string();
}

constexpr std::string_view kNothingLeft = ". Nothing was left under this name";

// An own process id in the name of a file that exists: a process of that id was killed here before,
// as happens in containers, where ids repeat.
int create_anew(const std::string& path, bool own) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  const int fd = ::open(path.c_str(), kFlags, 0666);
  if (fd >= 0 || errno != EEXIST || !own) return fd;
  ::unlink(path.c_str());
  return ::open(path.c_str(), kFlags, 0666);
}

}  // namespace

void fail_write(const std::string& path, int error, std::string_view aftermath) {
  if (error == ENOSPC || error == EDQUOT) {
    struct statvfs room {};
    double free_mib = 0;
    if (::statvfs(parent_of(path).c_str(), &room) == 0)
      free_mib =
          static_cast<double>(room.f_bavail) * static_cast<double>(room.f_frsize) / (1 << 20);
    fail(ErrorKind::failure,
         "{}: {} ({:.1f} MiB are free there); free some room, or choose an output on another "
         "disk{}",
         path, error == EDQUOT ? "your quota of the disk is used up" : "the disk is full", free_mib,
         aftermath);
  }
  if (error == EFBIG)
    fail(ErrorKind::failure,
         "{}: the file would be larger than this file system or the limit of 'ulimit -f' allows; "
         "raise the limit, or choose an output on another disk{}",
         path, aftermath);
  fail(ErrorKind::failure, "{}: cannot write: {}{}", path, std::strerror(error), aftermath);
}

OutputFile::OutputFile(std::string path, std::uint64_t expected_bytes, Naming naming)
    : path_(std::move(path)), buffer_(new std::byte[kBufferBytes]) {
  CHECK(!std::filesystem::is_directory(path_), "{}: is a directory, choose a file name", path_);
  temporary_ = naming == Naming::atomic ? temporary_name(path_) : path_;
  fd_ = create_anew(temporary_, naming == Naming::atomic);
  if (fd_ < 0 && (errno == ENOSPC || errno == EDQUOT)) fail_write(path_, errno, kNothingLeft);
  CHECK(fd_ >= 0, "{}: cannot create: {}; does the directory exist and may it be written?", path_,
        std::strerror(errno));
  if (expected_bytes == 0) return;
  // Reserving is a courtesy: file systems that cannot do it say so, and writing then finds out.
  if (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(expected_bytes)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    const int error = errno;
    discard();
    fail_write(path_, error, kNothingLeft);
  }
}

OutputFile::~OutputFile() { discard(); }

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      buffered_(std::exchange(other.buffered_, 0)),
      buffer_(std::move(other.buffer_)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(buffered_, other.buffered_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

void OutputFile::discard() noexcept {
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));
  ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  CHECK(fd_ >= 0, "{}: written after it was finished", path_);
  size_ += bytes.size();
  if (bytes.size() >= kBufferBytes) {
    flush_buffer();
    write_out(bytes);
    return;
  }
  if (buffered_ + bytes.size() > kBufferBytes) flush_buffer();
  if (!bytes.empty()) std::memcpy(buffer_.get() + buffered_, bytes.data(), bytes.size());
  buffered_ += bytes.size();
}

void OutputFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void OutputFile::pad_to(std::uint64_t alignment) {
  static constexpr std::byte kZeros[64]{};
  std::uint64_t missing = (alignment - size_ % alignment) % alignment;
  while (missing > 0) {
    const std::uint64_t n = std::min<std::uint64_t>(missing, sizeof kZeros);
    write(std::span(kZeros, n));
    missing -= n;
  }
}

void OutputFile::flush_buffer() {
  write_out({buffer_.get(), buffered_});
  buffered_ = 0;
}

void OutputFile::write_out(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t chunk = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
    const ssize_t n = ::write(fd_, bytes.data(), chunk);
    if (n < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      discard();
      fail_write(path_, error, kNothingLeft);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void OutputFile::commit() {
  CHECK(fd_ >= 0, "{}: finished twice", path_);
  flush_buffer();
  int error = ::fsync(fd_) == 0 ? 0 : errno;
  if (::close(std::exchange(fd_, -1)) != 0 && !error) error = errno;
  if (!error && temporary_ != path_ && ::rename(temporary_.c_str(), path_.c_str()) != 0)
    error = errno;
  if (error) {
    ::unlink(temporary_.c_str());
    fail_write(path_, error, kNothingLeft);
  }
  sync_directory(parent_of(path_));
}

void write_file(const std::string& path, std::string_view content) {
  OutputFile file(path);
  file.write(content);
  file.commit();
}

std::string read_file(const std::string& path, std::uint64_t max_bytes) {
  const MappedFile file = MappedFile::open(path);
  CHECK_FILE(file.bytes().size() <= max_bytes,
             "{}: {} bytes, more than the {} that such a file may have", path, file.bytes().size(),
             max_bytes);
  return std::string(file.text());
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  CHECK(!error && std::filesystem::is_directory(path), "{}: cannot create the directory: {}", path,
        error ? error.message() : "a file of that name exists");
}

void remove_temporaries(const std::string& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    const std::size_t mark = name.rfind(".tmp-");
    if (!name.starts_with(".") || mark == std::string::npos || mark == 0) continue;
    if (name.find_first_not_of("0123456789-", mark + 5) != std::string::npos) continue;
    if (it->is_regular_file(error)) found.push_back(it->path());
  }
  for (const auto& path : found) std::filesystem::remove(path, error);
}

void sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return;  // no permission to read the directory: the rename has happened, only its durability is
             // late
  (void)::fsync(fd);  // some file systems do not sync directories
  ::close(fd);
}

}  // namespace supersonic::io
