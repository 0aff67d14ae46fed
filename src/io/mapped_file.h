// A file mapped read-only into memory. Owns the mapping; movable, not copyable. Views into bytes()
// stay valid when the object is moved, and until it is destroyed. The file must not be shortened
// while it is mapped: the kernel answers a read past the new end with SIGBUS. Files of ours are
// replaced by rename, never rewritten in place, which leaves existing mappings intact.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace supersonic::io {

class MappedFile {
 public:
  MappedFile() = default;
  // Throws Error(bad_file) when there is no such file, it is not a regular file, or it cannot be
  // read.
  static MappedFile open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::string& path() const { return path_; }

  enum class Access { normal, sequential, random, will_need };
  void advise(Access access) const;  // a hint to the kernel's read-ahead; never fails

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string path_;
};

// Gives back the memory of a mapped range that nobody reads at present; reading it again takes it
// from the file. The range must lie in a MappedFile.
void drop_pages(std::span<const std::byte> range);

}  // namespace supersonic::io
