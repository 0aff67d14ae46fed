// From the pieces to a pipeline.
#include "text/sentence_piece.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "text/token_index.h"

namespace supersonic::text {
namespace {

constexpr const char* kSpacePiece = "\xE2\x96\x81";
constexpr size_t kLongestPiece = 1024;  // bytes; a longer one is not taken apart into merges

int32_t type_of(const SentencePieces& in, size_t id) {
  return in.types.empty() ? int32_t{kNormal} : in.types[id];
}

void add_normalizers(const SentencePieces& in, TokenizerSpec& spec) {
  const auto replace = [&](std::string what, bool regex, std::string with) {
    spec.normalizers.push_back({.kind = NormalizerStep::replace,
                                .pattern = {std::move(what), regex},
                                .content = std::move(with)});
  };
  if (!in.charsmap.empty())
    spec.normalizers.push_back(
        {.kind = NormalizerStep::charsmap, .content = in.charsmap, .clusters = in.like_crate});
  if (in.merge_spaces) {
    replace(" {2,}", true, " ");
    replace("\\A | \\z", true, "");
  }
  if (in.space_in_front)
    spec.normalizers.push_back({.kind = NormalizerStep::prepend, .content = kSpacePiece});
  replace(" ", false, kSpacePiece);
}

void add_decoders(const SentencePieces& in, TokenizerSpec& spec) {
  spec.decoders.push_back(
      {.kind = DecodeStep::replace, .pattern = {kSpacePiece, false}, .content = " "});
  if (in.byte_fallback) spec.decoders.push_back({.kind = DecodeStep::byte_fallback});
  spec.decoders.push_back({.kind = DecodeStep::fuse});
  if (in.space_in_front)
    spec.decoders.push_back({.kind = DecodeStep::strip, .content = " ", .start = 1});
}

void add_tokens(const SentencePieces& in, TokenizerSpec& spec) {
  for (size_t id = 0; id < in.tokens.size(); ++id) {
    const int32_t t = type_of(in, id);
    if ((t != kControl && t != kUserDefined && t != kUnknown) || in.tokens[id].empty()) continue;
    AddedToken token{.id = static_cast<int32_t>(id), .content = in.tokens[id]};
    token.special = t != kUserDefined;
    spec.added.push_back(std::move(token));
  }
}

void merges_from_scores(const SentencePieces& in, ModelSpec& m) {
  std::vector<std::string> pieces = m.tokens;  // only what text may become
  for (size_t id = 0; id < pieces.size(); ++id) {
    const int32_t t = type_of(in, id);
    if (t == kControl || t == kUnknown || t == kByte || t == kUserDefined) pieces[id].clear();
  }
  TokenIndex index;
  index.build(pieces);
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string_view piece = pieces[id];
    if (piece.size() > kLongestPiece ||
        (!piece.empty() && index.find(piece) != static_cast<int32_t>(id)))
      continue;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xC0) == 0x80) continue;
      const int32_t left = index.find(piece.substr(0, cut));
      const int32_t right = left < 0 ? -1 : index.find(piece.substr(cut));
      if (right >= 0) m.merges.push_back({left, right, static_cast<int32_t>(id), 0});
    }
  }
  const auto score = [&](const MergeRule& r) { return m.scores[static_cast<size_t>(r.result)]; };
  std::stable_sort(m.merges.begin(), m.merges.end(),
                   [&](auto& a, auto& b) { return score(a) > score(b); });
  for (size_t i = 1; i < m.merges.size(); ++i)
    m.merges[i].rank = m.merges[i - 1].rank + (score(m.merges[i]) != score(m.merges[i - 1]));
}

// Words can be cut at spaces when no piece goes on behind one.
void cut_at_spaces(TokenizerSpec& spec) {
  const auto crosses = [](const std::string& token) {
    return token.find(kSpacePiece, 1) != token.npos;
  };
  const auto& tokens = spec.model.tokens;
  if (std::any_of(tokens.begin(), tokens.end(), crosses)) return;
  spec.pre_steps.push_back({.kind = PreStep::split,
                            .pattern = {kSpacePiece, false},
                            .behavior = Behavior::merged_with_next});
}

}  // namespace

TokenizerSpec sentence_piece_spec(SentencePieces in, std::string_view where) {
  const auto n = static_cast<int64_t>(in.tokens.size());
  const std::pair<int32_t, const char*> ids[] = {
      {in.bos, "bos"}, {in.eos, "eos"}, {in.unk, "unk"}, {in.pad, "pad"}};
  for (const auto& [id, name] : ids)
    CHECK_FILE(id >= -1 && id < n, "{}: the {} id is {} of {} pieces", where, name, id, n);
  for (size_t id = 0; id < in.scores.size(); ++id)
    CHECK_FILE(std::isfinite(in.scores[id]), "{}: the score of piece {} is not a number", where,
               id);
  TokenizerSpec spec;
  spec.bos = in.bos, spec.eos = in.eos, spec.unk = in.unk, spec.pad = in.pad;
  add_tokens(in, spec);
  add_normalizers(in, spec);
  add_decoders(in, spec);
  ModelSpec& m = spec.model;
  m.tokens = std::move(in.tokens);
  m.scores = std::move(in.scores);
  m.byte_fallback = in.byte_fallback;
  m.fuse_unk = true;
  m.unk_id = in.unk;
  if (!in.unigram) {
    if (in.unk >= 0) m.unk_token = m.tokens[static_cast<size_t>(in.unk)];
    merges_from_scores(in, m);
    return spec;
  }
  m.kind = ModelSpec::unigram;
  m.float_sums = !in.like_crate;
  m.hidden.resize(m.tokens.size());
  for (size_t id = 0; id < m.tokens.size(); ++id) {
    const int32_t t = type_of(in, id);
    m.hidden[id] = t == kControl || t == kUnknown || t == kByte;
    if (t == kUserDefined) m.scores[id] = 0;
  }
  cut_at_spaces(spec);
  return spec;
}

}  // namespace supersonic::text
