// The hash tables, the start symbols with unknown and byte fallback handling, and the two merge
// loops.
#include "text/bpe.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr size_t kShortWord = 40;  // symbols up to which scanning beats the heap
constexpr uint32_t kNoRank = UINT32_MAX;

size_t table_size(size_t entries) { return std::bit_ceil(std::max<size_t>(16, entries * 2)); }

}  // namespace

void MergeTable::build(const std::vector<MergeRule>& merges) {
  slots_.assign(table_size(merges.size()), Entry{});
  shift_ = 64 - std::countr_zero(slots_.size());
  for (const MergeRule& m : merges) {
    const uint64_t key = uint64_t(uint32_t(m.left)) << 32 | uint32_t(m.right);
    size_t slot = key * 0x9E3779B97F4A7C15ull >> shift_;
    while (slots_[slot].key != UINT64_MAX && slots_[slot].key != key)
      slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = {key, m.rank, m.result};
  }
}

Bpe::Bpe(const ModelSpec& spec, bool raw_bytes) : spec_(spec), raw_bytes_(raw_bytes) {
  index_.build(spec_.tokens);
  merges_.build(spec_.merges);
  if (!spec_.unk_token.empty()) {
    unk_ = index_.find(spec_.unk_token);
    CHECK_FILE(unk_ >= 0, "model.unk_token: '{}' is not in the vocabulary", spec_.unk_token);
  }
  for (int b = 0; b < 256; ++b) {
    std::string mapped;
    append_utf8(mapped, byte_to_code(static_cast<uint8_t>(b)));
    byte_ids_[b] = index_.find(mapped);
    fallback_ids_[b] = spec_.byte_fallback ? index_.find(fmt::format("<0x{:02X}>", b)) : -1;
  }
  if (raw_bytes_ && spec_.ignore_merges) {
    raw_tokens_.resize(spec_.tokens.size());
    for (size_t id = 0; id < spec_.tokens.size(); ++id)
      if (!unmap_bytes(spec_.tokens[id], raw_tokens_[id])) raw_tokens_[id].clear();
    raw_index_.build(raw_tokens_);
  }
  study_merges();
}

void Bpe::study_merges() {
  widths_.assign(spec_.tokens.size(), 0);
  // A token covers what it spells, unless an unknown, a byte token or an affix is part of it.
  if (!spec_.subword_prefix.empty() || !spec_.word_suffix.empty()) return;
  std::vector<uint8_t> odd(widths_.size(), 0);
  for (const int32_t id : fallback_ids_)
    if (id >= 0) odd[static_cast<size_t>(id)] = 1;
  if (unk_ >= 0) odd[static_cast<size_t>(unk_)] = 1;
  for (const MergeRule& m : spec_.merges)
    if (odd[static_cast<size_t>(m.left)] || odd[static_cast<size_t>(m.right)]) return;
  const bool no_gaps = std::all_of(std::begin(fallback_ids_), std::end(fallback_ids_),
                                   [](int32_t id) { return id >= 0; });
  if (no_gaps && !raw_bytes_ && !spec_.ignore_merges) cuts_.build(spec_);
  std::string bytes;
  for (size_t id = 0; id < widths_.size(); ++id) {
    bytes.clear();
    if (odd[id])
      widths_[id] = static_cast<int32_t>(id) != unk_;
    else if (!raw_bytes_)
      widths_[id] = static_cast<uint32_t>(spec_.tokens[id].size());
    else if (unmap_bytes(spec_.tokens[id], bytes))
      widths_[id] = static_cast<uint32_t>(bytes.size());
  }
}

void Bpe::encode(std::string_view word, ModelScratch& scratch, std::vector<int32_t>& out) const {
  constexpr size_t kCached = WordCache::kLongest;
  if (word.size() <= kCached) return encode_cached(word, scratch, out);
  if (cuts_.empty()) return encode_uncached(word, scratch, out);
  for (size_t at = 0; at < word.size();) {
    const size_t end = cuts_.part_end(word, at);
    const std::string_view part = word.substr(at, end - at);
    if (part.size() <= kCached)
      encode_cached(part, scratch, out);
    else
      encode_uncached(part, scratch, out);
    at = end;
  }
}

void Bpe::encode_cached(std::string_view word, ModelScratch& scratch,
                        std::vector<int32_t>& out) const {
  WordCache::Entry& entry = scratch.cache.slot(word);
  if (entry.holds(word)) {
    out.insert(out.end(), entry.ids, entry.ids + entry.count);
    return;
  }
  const size_t before = out.size();
  encode_uncached(word, scratch, out);
  WordCache::keep(entry, word, out.data() + before, out.size() - before);
}

void Bpe::encode_uncached(std::string_view word, ModelScratch& scratch,
                          std::vector<int32_t>& out) const {
  if (spec_.ignore_merges) {
    const int32_t id = raw_bytes_ ? raw_index_.find(word) : index_.find(word);
    if (id >= 0) return out.push_back(id);
  }
  CHECK(word.size() < (size_t{1} << 31), "tokenizer: a word of {} bytes is too long", word.size());
  start(word, scratch);
  if (scratch.ids.size() > kShortWord)
    merge_long(scratch);
  else if (scratch.ids.size() > 1)
    merge_short(scratch);
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
}

void Bpe::encode_followed(Stretch word, ModelScratch& scratch, std::vector<int32_t>& out,
                          std::vector<uint32_t>& ends) const {
  const size_t first = out.size();
  encode(word.text, scratch, out);
  size_t covered = 0;
  for (size_t i = first; i < out.size(); ++i) covered += widths_[static_cast<size_t>(out[i])];
  if (covered == word.text.size()) {  // no width says too much, so each is right
    size_t at = 0;
    for (size_t i = first; i < out.size(); ++i) {
      at += widths_[static_cast<size_t>(out[i])];
      ends.push_back(word.origin[at - 1].end);
    }
    return;
  }
  if (out.size() == first) return;
  // Unknown or missing characters, or affixes: follow the merges.
  start(word.text, scratch);
  const bool merged = scratch.ids.size() > 1;
  if (merged) merge_long(scratch);
  const bool whole =
      scratch.ids.size() != out.size() - first;  // ignore_merges took the word as one token
  const auto stop_of = [&](int32_t symbol) {
    const int32_t next = merged ? scratch.symbols[static_cast<size_t>(symbol)].next : -1;
    return next < 0 ? scratch.stops.back() : scratch.stops[static_cast<size_t>(next) - 1];
  };
  if (whole) return ends.resize(out.size(), word.origin[word.text.size() - 1].end);
  for (int32_t i = 0; ends.size() < out.size();) {
    ends.push_back(word.origin[stop_of(i) - 1].end);
    i = merged ? scratch.symbols[static_cast<size_t>(i)].next : -1;
  }
}

void Bpe::start(std::string_view word, ModelScratch& scratch) const {
  scratch.ids.clear();
  scratch.stops.clear();
  if (raw_bytes_)
    start_bytes(word, scratch);
  else
    start_characters(word, scratch);
}

void Bpe::start_bytes(std::string_view word, ModelScratch& s) const {
  bool after_unknown = false;
  for (size_t i = 0; i < word.size(); ++i) {
    const int32_t known = byte_ids_[static_cast<uint8_t>(word[i])];
    const auto stop = static_cast<uint32_t>(i + 1);
    const bool fused = known < 0 && spec_.fuse_unk && after_unknown;
    after_unknown = known < 0;
    if (fused && unk_ >= 0) {
      s.stops.back() = stop;
    } else if (known >= 0 || unk_ >= 0) {
      s.ids.push_back(known >= 0 ? known : unk_);
      s.stops.push_back(stop);
    }
  }
}

void Bpe::start_characters(std::string_view word, ModelScratch& s) const {
  const char *begin = word.data(), *end = begin + word.size();
  const bool affixes = !spec_.subword_prefix.empty() || !spec_.word_suffix.empty();
  uint32_t unknown = 0;  // where an unknown ends that waits to be emitted: fused ones become one,
                         // byte fallback overtakes it
  std::string decorated;
  const auto emit = [&](int32_t id, size_t stop) {
    s.ids.push_back(id);
    s.stops.push_back(static_cast<uint32_t>(stop));
  };
  for (const char* p = begin; p < end;) {
    const char* start = p;
    next_code(p);
    const size_t from = start - begin, stop = p - begin;
    std::string_view character = word.substr(from, stop - from);
    if (affixes) {
      decorated = start == begin ? "" : spec_.subword_prefix;
      decorated += character;
      if (p == end) decorated += spec_.word_suffix;
      character = decorated;
    }
    if (const int32_t id = index_.find(character); id >= 0) {
      if (unknown) emit(unk_, unknown);
      unknown = 0;
      emit(id, stop);
      continue;
    }
    const auto falls_back = [&](char c) { return fallback_ids_[uint8_t(c)] >= 0; };
    if (spec_.byte_fallback && std::all_of(character.begin(), character.end(), falls_back)) {
      for (size_t i = 0; i < character.size(); ++i)
        emit(fallback_ids_[uint8_t(character[i])], affixes ? stop : from + i + 1);
      continue;
    }
    if (unk_ < 0) continue;
    if (unknown && !spec_.fuse_unk) emit(unk_, unknown);
    unknown = static_cast<uint32_t>(stop);
  }
  if (unknown) emit(unk_, unknown);
}

void Bpe::merge_short(ModelScratch& s) const {
  auto& ids = s.ids;
  s.ranks.assign(ids.size(), kNoRank);
  s.results.resize(ids.size());
  const auto look_up = [&](size_t i) {
    const MergeTable::Entry* e = merges_.find(ids[i], ids[i + 1]);
    s.ranks[i] = e ? e->rank : kNoRank;
    s.results[i] = e ? e->result : -1;
  };
  for (size_t i = 0; i + 1 < ids.size(); ++i) look_up(i);
  while (ids.size() > 1) {
    const auto best = std::min_element(s.ranks.begin(), s.ranks.end());
    if (*best == kNoRank) return;
    const size_t i = static_cast<size_t>(best - s.ranks.begin());
    ids[i] = s.results[i];
    const auto gone = static_cast<ptrdiff_t>(i + 1);
    ids.erase(ids.begin() + gone);
    s.ranks.erase(s.ranks.begin() + gone);
    s.results.erase(s.results.begin() + gone);
    s.ranks[i] = kNoRank;
    if (i + 1 < ids.size()) look_up(i);
    if (i > 0) look_up(i - 1);
  }
}

void Bpe::merge_long(ModelScratch& s) const {
  const auto count = static_cast<int32_t>(s.ids.size());
  s.symbols.resize(s.ids.size());
  s.heap.clear();
  for (int32_t i = 0; i < count; ++i) s.symbols[i] = {s.ids[i], i - 1, i + 1 < count ? i + 1 : -1};
  const auto later = [](const ModelScratch::Candidate& a, const ModelScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto candidate = [&](int32_t at, int32_t right) {
    if (const MergeTable::Entry* e = merges_.find(s.symbols[at].id, s.symbols[right].id))
      s.heap.push_back({e->rank, at, e->result});
    else
      return false;
    return true;
  };
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i, i + 1);
  std::make_heap(s.heap.begin(), s.heap.end(), later);
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), later);
    const ModelScratch::Candidate top = s.heap.back();
    s.heap.pop_back();
    ModelScratch::Symbol& left = s.symbols[top.at];
    if (left.id < 0 || left.next < 0) continue;
    ModelScratch::Symbol& right = s.symbols[left.next];
    const MergeTable::Entry* e = merges_.find(left.id, right.id);
    if (!e || e->result != top.result) continue;  // one of the two has grown since
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) s.symbols[left.next].previous = top.at;
    if (left.previous >= 0 && candidate(left.previous, top.at))
      std::push_heap(s.heap.begin(), s.heap.end(), later);
    if (left.next >= 0 && candidate(top.at, left.next))
      std::push_heap(s.heap.begin(), s.heap.end(), later);
  }
  s.ids.clear();
  for (int32_t i = 0; i >= 0; i = s.symbols[i].next) s.ids.push_back(s.symbols[i].id);
}

}  // namespace supersonic::text
