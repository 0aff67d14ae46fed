// The weight codecs from the command line, for the Python tests: raw little-endian bytes in, raw
// bytes out.
//
//   format_probe list                        one line a format: name, GGUF type, block, block
//   bytes, planes, writable format_probe encode NAME ROWS COLS       f32 weights -> the planes, one
//   after the other format_probe decode NAME ROWS COLS       the planes -> f32 weights format_probe
//   dynamic8 signed|unsigned N  f32 values -> codes, then one f32 for each block of N format_probe
//   map signed|unsigned         -> the 256 f32 values
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "formats/dynamic8.h"
#include "formats/format.h"

namespace supersonic {
namespace {

std::vector<char> read_all(std::size_t expected) {
  std::vector<char> bytes(expected + 1);
  const std::size_t n = std::fread(bytes.data(), 1, bytes.size(), stdin);
  CHECK(n == expected, "expected {} bytes on stdin, got {}", expected,
        n > expected ? "more" : std::to_string(n));
  bytes.resize(n);
  return bytes;
}

void write_all(const void* data, std::size_t bytes) {
  CHECK(std::fwrite(data, 1, bytes, stdout) == bytes, "cannot write to stdout");
}

void list_formats() {
  for (const Format* f : all_formats()) {
    fmt::print("{} {} {} {} {} {}\n", f->name, f->ggml_type, f->block, f->block_bytes, f->planes,
               f->encode ? "rw" : "r");
  }
}

void convert(bool encode, std::string_view name, std::int64_t rows, std::int64_t cols) {
  const Format* f = find_format(name);
  CHECK(f, "no format is called {}", name);
  CHECK(!encode || f->encode, "{} is read only", name);
  const auto count = static_cast<std::size_t>(rows * cols);
  std::vector<std::vector<char>> planes;
  void* pointers[kMaxPlanes] = {};
  Planes view;
  for (int p = 0; p < f->planes; ++p) {
    planes.emplace_back(f->plane_bytes(*f, p, rows, cols));
    view.data[p] = pointers[p] = planes.back().data();
  }
  std::vector<float> w(count);
  const std::vector<char> in = read_all(encode ? 4 * count : total_bytes(*f, rows, cols));
  if (encode) {
    std::memcpy(w.data(), in.data(), in.size());
    f->encode(w.data(), rows, cols, pointers);
    for (const auto& plane : planes) write_all(plane.data(), plane.size());
    return;
  }
  const char* from = in.data();
  for (auto& plane : planes) {
    std::copy(from, from + plane.size(), plane.data());
    from += plane.size();
  }
  f->decode(view, 0, rows * cols, w.data());
  write_all(w.data(), 4 * count);
}

void dynamic_blocks(const formats::Dynamic8& map, std::size_t block) {
  std::vector<float> x;
  for (float value; std::fread(&value, 4, 1, stdin) == 1;) x.push_back(value);
  std::vector<std::uint8_t> codes(x.size());
  std::vector<float> largest;
  for (std::size_t first = 0; first < x.size(); first += block) {
    const auto n = static_cast<int>(std::min(block, x.size() - first));
    largest.push_back(map.encode_block(x.data() + first, n, codes.data() + first));
  }
  write_all(codes.data(), codes.size());
  write_all(largest.data(), 4 * largest.size());
}

void run(const std::vector<std::string>& args) {
  CHECK(!args.empty(), "usage: format_probe list|encode|decode|dynamic8|map ...");
  const std::string& verb = args[0];
  if (verb == "list") return list_formats();
  CHECK(args.size() > 1, "format_probe {}: a name is missing", verb);
  const auto& map = args[1] == "signed" ? formats::kDynamicSigned : formats::kDynamicUnsigned;
  if (verb == "map") return write_all(map.values, sizeof map.values);
  if (verb == "dynamic8" && args.size() == 3) return dynamic_blocks(map, std::stoul(args[2]));
  CHECK((verb == "encode" || verb == "decode") && args.size() == 4,
        "format_probe {} NAME ROWS COLS", verb);
  convert(verb == "encode", args[1], std::stoll(args[2]), std::stoll(args[3]));
}

}  // namespace
}  // namespace supersonic

int main(int argc, char** argv) {
  try {
    supersonic::run(std::vector<std::string>(argv + 1, argv + argc));
    return 0;
  } catch (const supersonic::Error& e) {
    fmt::print(stderr, "format_probe: {}\n", e.what());
    return static_cast<int>(e.kind());
  }
}
