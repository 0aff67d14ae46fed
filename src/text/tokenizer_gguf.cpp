// GGUF tokenizer keys -> TokenizerSpec, and back. Model "gpt2" is byte-level BPE with a named
// pre-tokenizer; "llama" is SentencePiece BPE, whose merges follow from the scores: any two pieces
// whose join is a piece, best score first.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "text/bpe.h"
#include "text/pre_types.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

enum TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};
constexpr const char* kSpacePiece = "\xE2\x96\x81";
constexpr size_t kMaxTokens = size_t{1} << 24, kMaxPieceBytes = 1 << 16;

struct Reader {
  const GgufVocab& in;
  std::string_view origin;
  TokenizerSpec spec;

  int32_t type(size_t id) const {
    return in.token_type.empty() ? int32_t{kNormal} : in.token_type[id];
  }

  void tokens() {
    const size_t n = in.tokens.size();
    CHECK_FILE(n > 0 && n <= kMaxTokens, "{}: tokenizer.ggml.tokens has {} entries", origin, n);
    CHECK_FILE(in.token_type.empty() || in.token_type.size() >= n,
               "{}: tokenizer.ggml.token_type has {} entries for {} tokens", origin,
               in.token_type.size(), n);
    CHECK_FILE(in.scores.empty() || in.scores.size() >= n,
               "{}: tokenizer.ggml.scores has {} entries for {} tokens", origin, in.scores.size(),
               n);
    spec.model.tokens.reserve(n);
    for (size_t id = 0; id < n; ++id) {
      const std::string_view t = in.tokens[id];
      CHECK_FILE(t.size() <= kMaxPieceBytes, "{}: tokenizer.ggml.tokens[{}] has {} bytes", origin,
                 id, t.size());
      CHECK_FILE(valid_utf8(t), "{}: tokenizer.ggml.tokens[{}] is not UTF-8", origin, id);
      spec.model.tokens.emplace_back(t);
    }
    const std::pair<int32_t, const char*> ids[] = {{in.bos_id, "bos"},
                                                   {in.eos_id, "eos"},
                                                   {in.eot_id, "eot"},
                                                   {in.unk_id, "unknown"},
                                                   {in.pad_id, "padding"}};
    for (const auto& [id, key] : ids)
      CHECK_FILE(id >= -1 && id < static_cast<int64_t>(n),
                 "{}: tokenizer.ggml.{}_token_id is {} of {} tokens", origin, key, id, n);
    spec.bos = in.bos_id, spec.eos = in.eos_id, spec.eot = in.eot_id, spec.unk = in.unk_id,
    spec.pad = in.pad_id;
  }

  void added() {
    // Phi-3's control tokens swallow the white space behind them; the format has no key for that,
    // so llama.cpp goes by the name.
    std::string name(in.name);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    const bool phi3 = name.find("phi-3") != name.npos || name.find("phi3") != name.npos;
    for (size_t id = 0; id < in.tokens.size(); ++id) {
      const int32_t t = type(id);
      if ((t != kControl && t != kUserDefined && t != kUnknown) || in.tokens[id].empty()) continue;
      AddedToken token{.id = static_cast<int32_t>(id), .content = std::string(in.tokens[id])};
      token.special = t != kUserDefined;
      token.rstrip = phi3 && token.content != "<unk>" && token.content != "<s>" &&
                     token.content != "<|endoftext|>";
      spec.added.push_back(std::move(token));
    }
  }

  void around(bool bos_default) {
    if (in.add_bos.value_or(bos_default) && spec.bos >= 0) spec.prefix = {spec.bos};
    if (in.add_eos.value_or(false) && spec.eos >= 0) spec.suffix = {spec.eos};
  }

  void byte_level() {
    PreType pre;
    CHECK_FILE(find_pre_type(in.pre, pre),
               "{}: tokenizer.ggml.pre '{}' is not a known pre-tokenizer", origin, in.pre);
    spec.pre = in.pre;
    spec.pre_steps = std::move(pre.steps);
    spec.normalizers = std::move(pre.normalizers);
    spec.model.ignore_merges = pre.ignore_merges;
    spec.decoders = {{.kind = DecodeStep::byte_level, .pattern = {}, .content = {}}};
    around(pre.add_bos);
    TokenIndex index;
    index.build(spec.model.tokens);
    for (size_t n = 0; n < in.merges.size(); ++n) {
      const std::string_view m = in.merges[n];
      const size_t space = m.empty() ? m.npos : m.find(' ', 1);
      CHECK_FILE(space != m.npos && space + 1 < m.size(),
                 "{}: tokenizer.ggml.merges[{}] is not two tokens", origin, n);
      const std::string_view left = m.substr(0, space), right = m.substr(space + 1);
      const MergeRule rule{index.find(left), index.find(right),
                           index.find(std::string(left) += right), static_cast<uint32_t>(n)};
      CHECK_FILE(rule.left >= 0 && rule.right >= 0 && rule.result >= 0,
                 "{}: tokenizer.ggml.merges[{}] ('{}') names a token that is not in tokens", origin,
                 n, m);
      spec.model.merges.push_back(rule);
    }
  }

  void sentence_piece() {
    CHECK_FILE(!in.scores.empty(), "{}: tokenizer.ggml.scores is missing", origin);
    const auto default_id = [&](int32_t& id, int32_t value) {
      if (id < 0 && value < static_cast<int32_t>(in.tokens.size())) id = value;
    };
    default_id(spec.unk, 0);
    default_id(spec.bos, 1);
    default_id(spec.eos, 2);
    BpeSpec& m = spec.model;
    m.scores.assign(in.scores.begin(),
                    in.scores.begin() + static_cast<ptrdiff_t>(in.tokens.size()));
    m.byte_fallback = m.fuse_unk = true;
    if (spec.unk >= 0) m.unk_token = m.tokens[static_cast<size_t>(spec.unk)];
    const bool space = in.add_space_prefix.value_or(true);
    if (space)
      spec.normalizers.push_back(
          {.kind = NormalizerStep::prepend, .pattern = {}, .content = kSpacePiece});
    spec.normalizers.push_back(
        {.kind = NormalizerStep::replace, .pattern = {" ", false}, .content = kSpacePiece});
    spec.decoders = {{.kind = DecodeStep::replace, .pattern = {kSpacePiece, false}, .content = " "},
                     {.kind = DecodeStep::byte_fallback, .pattern = {}, .content = {}},
                     {.kind = DecodeStep::fuse, .pattern = {}, .content = {}}};
    if (space)
      spec.decoders.push_back(
          {.kind = DecodeStep::strip, .pattern = {}, .content = " ", .start = 1});
    around(true);
    merges_from_scores();
  }

  void merges_from_scores() {
    BpeSpec& m = spec.model;
    std::vector<std::string> pieces = m.tokens;  // only what text may become
    for (size_t id = 0; id < pieces.size(); ++id) {
      const int32_t t = type(id);
      if (t == kControl || t == kUnknown || t == kByte || t == kUserDefined) pieces[id].clear();
      CHECK_FILE(m.scores[id] == m.scores[id], "{}: tokenizer.ggml.scores[{}] is not a number",
                 origin, id);
    }
    TokenIndex index;
    index.build(pieces);
    for (size_t id = 0; id < pieces.size(); ++id) {
      const std::string_view piece = pieces[id];
      if (piece.size() > 1024 || (!piece.empty() && index.find(piece) != static_cast<int32_t>(id)))
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
};

bool byte_level_model(const TokenizerSpec& spec) {
  return std::any_of(spec.pre_steps.begin(), spec.pre_steps.end(),
                     [](const PreStep& s) { return s.kind == PreStep::byte_level; });
}

bool byte_name(std::string_view t) {
  return t.size() == 6 && t.starts_with("<0x") && t.back() == '>';
}

}  // namespace

Tokenizer Tokenizer::from_gguf(const GgufVocab& vocab, std::string_view origin) {
  Reader reader{vocab, origin, {}};
  reader.tokens();
  reader.added();
  if (vocab.model == "gpt2")
    reader.byte_level();
  else if (vocab.model == "llama")
    reader.sentence_piece();
  else
    fail(ErrorKind::bad_file,
         "{}: tokenizer.ggml.model '{}' is not supported; gpt2 (byte-level BPE) and llama "
         "(SentencePiece BPE) are",
         origin, vocab.model);
  return Tokenizer(std::move(reader.spec));
}

GgufVocabData to_gguf_vocab(const Tokenizer& tokenizer) {
  const TokenizerSpec& spec = tokenizer.spec();
  GgufVocabData out;
  const auto n = static_cast<size_t>(tokenizer.vocab_size());
  out.token_type.assign(n, kNormal);
  for (size_t id = 0; id < n; ++id) {
    const std::string_view token = tokenizer.token(static_cast<int32_t>(id));
    if (token.empty()) out.token_type[id] = kUnused;
    if (spec.model.byte_fallback && byte_name(token)) out.token_type[id] = kByte;
    out.tokens.push_back(token.empty() ? fmt::format("[PAD{}]", id) : std::string(token));
  }
  for (const AddedToken& t : spec.added)
    out.token_type[static_cast<size_t>(t.id)] = t.special ? kControl : kUserDefined;
  out.bos_id = spec.bos, out.eos_id = spec.eos, out.eot_id = spec.eot, out.unk_id = spec.unk,
  out.pad_id = spec.pad;
  if (spec.unk >= 0 && spec.model.byte_fallback)
    out.token_type[static_cast<size_t>(spec.unk)] = kUnknown;
  out.add_bos = tokenizer.adds_bos();
  out.add_eos = spec.eos >= 0 && !spec.suffix.empty() && spec.suffix.back() == spec.eos;
  if (byte_level_model(spec)) {
    out.model = "gpt2";
    out.pre = spec.pre.empty() ? std::string(name_pre_type(spec)) : spec.pre;
    CHECK(!out.pre.empty(),
          "GGUF has no name for this tokenizer's pre-tokenizer; export as a Hugging Face folder "
          "instead");
    for (const MergeRule& m : spec.model.merges)
      out.merges.push_back(spec.model.tokens[static_cast<size_t>(m.left)] + " " +
                           spec.model.tokens[static_cast<size_t>(m.right)]);
    return out;
  }
  CHECK(spec.model.byte_fallback,
        "GGUF can hold byte-level BPE and SentencePiece BPE with byte fallback, which this "
        "tokenizer is not");
  out.model = "llama";
  out.pre = "default";
  out.add_space_prefix =
      std::any_of(spec.normalizers.begin(), spec.normalizers.end(),
                  [](const NormalizerStep& s) { return s.kind == NormalizerStep::prepend; }) ||
      (!spec.pre_steps.empty() && spec.pre_steps[0].kind == PreStep::metaspace &&
       spec.pre_steps[0].prepend != PrependScheme::never);
  out.scores = spec.model.scores;
  if (out.scores.empty()) {  // a piece scores by the first merge that makes it; single characters
                             // come last, as SentencePiece has it
    out.scores.assign(n, 0.0f);
    const auto last = static_cast<float>(spec.model.merges.size());
    for (size_t id = 0; id < n; ++id)
      if (out.token_type[id] == kNormal) out.scores[id] = -last - 1;
    for (auto m = spec.model.merges.rbegin(); m != spec.model.merges.rend(); ++m)
      out.scores[static_cast<size_t>(m->result)] = -static_cast<float>(m->rank) - 1;
  }
  out.scores.resize(n, 0.0f);
  return out;
}

}  // namespace supersonic::text
