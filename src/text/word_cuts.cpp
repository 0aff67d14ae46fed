// The pairs are read off the merges: the last character of the left token and the first of the
// right one.
#include "text/word_cuts.h"

#include <algorithm>
#include <bit>

#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr uint64_t kFree = UINT64_MAX;

size_t slot_of(uint64_t pair, int shift) { return pair * 0x9E3779B97F4A7C15ull >> shift; }

}  // namespace

void WordCuts::build(const ModelSpec& spec) {
  std::vector<uint64_t> pairs;
  for (const MergeRule& m : spec.merges) {
    const std::string& left = spec.tokens[static_cast<size_t>(m.left)];
    const std::string& right = spec.tokens[static_cast<size_t>(m.right)];
    const uint32_t a = code_at(previous_char(left.data() + left.size())), b = code_at(right.data());
    if (a < 128 && b < 128)
      ascii_[a][b / 64] |= uint64_t{1} << b % 64;
    else
      pairs.push_back(uint64_t{a} << 32 | b);
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  slots_.assign(std::bit_ceil(std::max<size_t>(16, pairs.size() * 2)), kFree);
  shift_ = 64 - std::countr_zero(slots_.size());
  for (const uint64_t pair : pairs) {
    size_t slot = slot_of(pair, shift_);
    while (slots_[slot] != kFree) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = pair;
  }
}

bool WordCuts::joined(uint32_t left, uint32_t right) const {
  if (left < 128 && right < 128) return ascii_[left][right / 64] >> right % 64 & 1;
  const uint64_t pair = uint64_t{left} << 32 | right;
  for (size_t slot = slot_of(pair, shift_);; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot] == pair) return true;
    if (slots_[slot] == kFree) return false;
  }
}

size_t WordCuts::part_end(std::string_view word, size_t begin) const {
  const char *p = word.data() + begin, *end = word.data() + word.size();
  for (uint32_t left = next_code(p); p < end;) {
    const char* q = p;
    const uint32_t right = next_code(q);
    if (!joined(left, right)) break;
    left = right;
    p = q;
  }
  return static_cast<size_t>(p - word.data());
}

}  // namespace supersonic::text
