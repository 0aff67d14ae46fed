// Mapped files: giving pages back. The kernel's own count of resident file pages is the oracle.
#include "io/mapped_file.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "io_test_util.h"

namespace supersonic::io {
namespace {

// RssFile of /proc/self/status: bytes of mapped files that this process holds; -1 where there is no
// such line.
long resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stol(line.substr(8)) * 1024;
  return -1;
}

long sum(std::span<const std::byte> bytes) {
  long n = 0;
  for (const std::byte b : bytes) n += std::to_integer<int>(b);
  return n;
}

TEST(MappedFile, PagesThatAreDroppedLeaveMemoryAndCanBeReadAgain) {
  if (resident_file_bytes() < 0) GTEST_SKIP() << "this kernel does not count file pages";
  const io_test::TempDir folder;
  constexpr long kSize = 32 << 20;
  std::string content(kSize, '\0');
  for (long i = 0; i < kSize; ++i)
    content[static_cast<std::size_t>(i)] = static_cast<char>(i * 7 + i / 4096);
  std::ofstream(folder / "data", std::ios::binary) << content;
  const MappedFile file = MappedFile::open(folder / "data");
  const long before = resident_file_bytes(), wanted = sum(file.bytes());
  EXPECT_GE(resident_file_bytes() - before, kSize * 9 / 10);
  drop_pages(
      file.bytes().subspan(100, kSize - 5100));  // the ends of a tensor are seldom those of a page
  EXPECT_LE(resident_file_bytes() - before, kSize / 10);
  EXPECT_EQ(sum(file.bytes()), wanted);
  drop_pages({});
}

}  // namespace
}  // namespace supersonic::io
