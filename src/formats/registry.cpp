// The formats' records: the block codecs of list.h, NF4, and FP8 for caches.
#include <array>
#include <string>

#include "core/error.h"
#include "formats/fp8.h"
#include "formats/list.h"
#include "formats/nf4.h"
#include "formats/record.h"

namespace supersonic {
namespace {

template <class Codec>
constexpr Format kBlocks = formats::block_format<Codec>();

template <class... Codecs>
constexpr auto records_of(formats::CodecList<Codecs...>) {
  return std::array<const Format*, sizeof...(Codecs) + 2>{&kBlocks<Codecs>..., &formats::kNf4,
                                                          &formats::kNf4Plain};
}
constexpr auto kFormats = records_of(formats::BlockCodecs{});
constexpr const Format* kCacheFormats[] = {&kBlocks<formats::Q8_0>, &kBlocks<formats::Fp8>};

}  // namespace

std::span<const Format* const> all_formats() { return kFormats; }
std::span<const Format* const> cache_formats() { return kCacheFormats; }

const Format* find_format(std::string_view name) {
  for (const auto list : {all_formats(), cache_formats()})
    for (const Format* f : list)
      if (f->name == name) return f;
  return nullptr;
}

const Format* find_ggml_format(int ggml_type) {
  for (const Format* f : kFormats) {
    if (ggml_type >= 0 && f->ggml_type == ggml_type) return f;
  }
  return nullptr;
}

std::size_t total_bytes(const Format& format, std::int64_t rows, std::int64_t cols) {
  std::size_t bytes = 0;
  for (int p = 0; p < format.planes; ++p) bytes += format.plane_bytes(format, p, rows, cols);
  return bytes;
}

namespace {

std::string writable_names() {
  std::string names;
  for (const Format* f : kFormats)
    if (f->encode) names.append(names.empty() ? "" : ", ").append(f->name);
  return names;
}

}  // namespace

const Format* writable_for(const Format& format, std::int64_t cols) {
  CHECK(format.encode, "{} can be read but not written; choose one of {}", format.name,
        writable_names());
  if (!format.row_blocks || cols % format.block == 0) return &format;
  return format.fallback.empty() ? nullptr : writable_for(*find_format(format.fallback), cols);
}

}  // namespace supersonic
