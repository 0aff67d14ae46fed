// Where the bytes of a text come from while normalizers and pre-tokenizers rewrite it: each byte
// carries one past its last byte in the caller's text, and whether a template wrote it. Origins
// never decrease along a text. Text that nobody needs to follow has none (a null pointer), and
// rewriting it costs nothing extra.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text {

struct Origin {
  uint32_t end : 31;
  uint32_t trusted : 1;
};
using Origins = std::vector<Origin>;
inline constexpr size_t kMaxFollowed = (size_t{1} << 31) - 1;  // bytes of a text with origins

// A part of a text with its bytes' origins.
struct Stretch {
  std::string_view text;
  const Origin* origin = nullptr;  // one for each byte, or null
  Stretch part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), origin ? origin + begin : nullptr};
  }
};

// Builds a rewritten text out of copied and replaced parts of an old one.
class Rewriter {
 public:
  explicit Rewriter(Stretch from) : from_(from) {}
  void reserve(size_t bytes) { text_.reserve(bytes); }

  void copy(size_t begin, size_t end) {
    text_ += from_.text.substr(begin, end - begin);
    if (from_.origin) origins_.insert(origins_.end(), from_.origin + begin, from_.origin + end);
  }
  // `content` takes the place of [begin, end), and is trusted when all of that is.
  void replace(size_t begin, size_t end, std::string_view content) {
    if (begin == end) return insert(begin, content, false);
    text_ += content;
    if (!from_.origin) return;
    const auto trusted = [](Origin o) { return o.trusted != 0; };
    const bool all = std::all_of(from_.origin + begin, from_.origin + end, trusted);
    origins_.insert(origins_.end(), content.size(), {from_.origin[end - 1].end, all});
  }
  // `content` belongs to the byte at `at`, or to the last one where none is left.
  void insert(size_t at, std::string_view content, bool trusted) {
    text_ += content;
    if (!from_.origin) return;
    const bool none = from_.text.empty();
    const Origin next = none ? Origin{0, 0} : from_.origin[std::min(at, from_.text.size() - 1)];
    origins_.insert(origins_.end(), content.size(), {next.end, trusted && next.trusted});
  }
  void finish(std::string& text, Origins& origins) {
    text = std::move(text_);
    origins = std::move(origins_);
  }
  Stretch stretch() const { return {text_, from_.origin ? origins_.data() : nullptr}; }

 private:
  Stretch from_;
  std::string text_;
  Origins origins_;
};

}  // namespace supersonic::text
