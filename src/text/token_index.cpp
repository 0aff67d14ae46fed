// The hash and the table.
#include "text/token_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace supersonic::text {

uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kMultiplier = 0x9FB21C651E98DF25ull;
  uint64_t h = bytes.size() * kMultiplier;
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (uint64_t word; left >= 8; p += 8, left -= 8) {
    std::memcpy(&word, p, 8);
    h = (h ^ word) * kMultiplier;
    h ^= h >> 32;
  }
  if (left) {
    uint64_t word = 0;
    std::memcpy(&word, p, left);
    h = (h ^ word) * kMultiplier;
    h ^= h >> 32;
  }
  return h * kMultiplier;
}

void TokenIndex::build(const std::vector<std::string>& tokens) {
  tokens_ = &tokens;
  slots_.assign(std::bit_ceil(std::max<size_t>(16, tokens.size() * 2)), -1);
  const size_t mask = slots_.size() - 1;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    size_t slot = hash_bytes(tokens[id]) >> 20 & mask;
    while (slots_[slot] >= 0 && tokens[slots_[slot]] != tokens[id]) slot = (slot + 1) & mask;
    slots_[slot] = static_cast<int32_t>(id);
  }
}

int32_t TokenIndex::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash_bytes(token) >> 20 & mask;; slot = (slot + 1) & mask) {
    if (slots_[slot] < 0) return -1;
    if ((*tokens_)[slots_[slot]] == token) return slots_[slot];
  }
}

}  // namespace supersonic::text
