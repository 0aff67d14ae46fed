// Files that appear whole or not at all. An OutputFile writes to a hidden temporary beside its
// final name; commit() flushes it to the disk and renames it into place. Destroyed without
// commit(), it removes the temporary. A write that fails (a full disk, a limit on the size of
// files) throws Error(failure) that says what to do.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace supersonic::io {

class OutputFile {
 public:
  enum class Naming {
    atomic,
    direct
  };  // direct: writes under the final name (inside a directory that is itself atomic)

  // expected_bytes: when known, the room is reserved first, so that a full disk is found before any
  // work is done.
  explicit OutputFile(std::string path, std::uint64_t expected_bytes = 0,
                      Naming naming = Naming::atomic);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void pad_to(std::uint64_t alignment);  // zero bytes up to a multiple of alignment
  std::uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  void commit();

 private:
  void flush_buffer();
  void write_out(std::span<const std::byte> bytes);
  void discard() noexcept;

  std::string path_, temporary_;
  int fd_ = -1;
  std::uint64_t size_ = 0;  // bytes accepted
  std::size_t buffered_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
};

// The error of a failed write, with the remedy that belongs to `error` (an errno): Error(failure).
[[noreturn]] void fail_write(const std::string& path, int error, std::string_view aftermath = {});

void write_file(const std::string& path, std::string_view content);  // atomically
// The whole of a small file. Throws Error(bad_file) when it is larger than max_bytes.
std::string read_file(const std::string& path, std::uint64_t max_bytes);
void make_directories(const std::string& path);
void sync_directory(const std::string& path);  // makes renames inside it durable
// Removes temporaries of OutputFile that killed processes left in the folder. The caller knows that
// nobody else is writing there (FolderLock).
void remove_temporaries(const std::string& folder);

}  // namespace supersonic::io
