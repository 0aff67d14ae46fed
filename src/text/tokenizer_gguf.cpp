// GGUF tokenizer keys -> TokenizerSpec, and back. Model "gpt2" is BPE with a named pre-tokenizer;
// "llama" and "t5" are SentencePiece's BPE and Unigram; "bert" is WordPiece.
#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "text/pre_types.h"
#include "text/sentence_piece.h"
#include "text/token_index.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

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
    const std::pair<int32_t, const char*> ids[] = {{in.bos_id, "bos"},     {in.eos_id, "eos"},
                                                   {in.eot_id, "eot"},     {in.unk_id, "unknown"},
                                                   {in.pad_id, "padding"}, {in.sep_id, "seperator"},
                                                   {in.cls_id, "cls"}};
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

  void around(bool bos_default, bool eos_default = false) {
    if (in.add_bos.value_or(bos_default) && spec.bos >= 0) spec.prefix = {spec.bos};
    if (in.add_eos.value_or(eos_default) && spec.eos >= 0) spec.suffix = {spec.eos};
  }

  // BPE with merges, on bytes or (Gemma 4 and its like) on characters with spaces as U+2581.
  void bpe(std::string_view name) {
    PreType pre;
    CHECK_FILE(find_pre_type(name, pre), "{}: tokenizer.ggml.pre '{}' is not a known pre-tokenizer",
               origin, name);
    spec.pre = name;
    spec.pre_steps = std::move(pre.steps);
    spec.normalizers = std::move(pre.normalizers);
    spec.decoders = std::move(pre.decoders);
    spec.model.ignore_merges = pre.ignore_merges;
    spec.model.byte_fallback = spec.model.fuse_unk = pre.byte_fallback;
    if (pre.byte_fallback && spec.unk >= 0)
      spec.model.unk_token = spec.model.tokens[static_cast<size_t>(spec.unk)];
    around(pre.add_bos);
    merges();
  }

  void merges() {
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

  void default_id(int32_t& id, int32_t value) const {
    if (id < 0 && value < static_cast<int32_t>(in.tokens.size())) id = value;
  }

  void sentence_piece(bool unigram) {
    CHECK_FILE(!in.scores.empty(), "{}: tokenizer.ggml.scores is missing", origin);
    const size_t n = in.tokens.size();
    SentencePieces pieces{
        .unigram = unigram,
        .tokens = std::move(spec.model.tokens),
        .scores = {in.scores.begin(), in.scores.begin() + static_cast<ptrdiff_t>(n)},
        .types = {},
        .charsmap = std::string(in.charsmap),
        .like_crate = true,  // such models come with a tokenizer.json
        .space_in_front = in.add_space_prefix.value_or(true),
        .merge_spaces = unigram && in.merge_spaces.value_or(false)};
    if (!in.token_type.empty())
      pieces.types.assign(in.token_type.begin(), in.token_type.begin() + static_cast<ptrdiff_t>(n));
    if (unigram)
      pieces.byte_fallback =
          std::count(pieces.types.begin(), pieces.types.end(), int32_t{kByte}) == 256;
    default_id(spec.unk, unigram ? 2 : 0);
    if (!unigram) default_id(spec.bos, 1);
    default_id(spec.eos, unigram ? 1 : 2);
    pieces.bos = spec.bos, pieces.eos = spec.eos, pieces.unk = spec.unk, pieces.pad = spec.pad;
    TokenizerSpec built = sentence_piece_spec(std::move(pieces), origin);
    built.added = std::move(spec.added);  // with what the name says of them
    built.eot = spec.eot;
    spec = std::move(built);
    around(!unigram, unigram);
  }

  // Word starts are written with U+2581 in front, what goes on inside a word without "##", and
  // names in brackets as they are.
  void word_piece() {
    ModelSpec& m = spec.model;
    m.kind = ModelSpec::word_piece;
    m.subword_prefix = "##";
    const auto bracketed = [](std::string_view t) {
      return t.size() > 2 && t.starts_with('[') && t.ends_with(']');
    };
    for (size_t id = 0; id < m.tokens.size(); ++id) {
      std::string& token = m.tokens[id];
      if (token.starts_with(kSpacePiece))
        token.erase(0, std::string_view(kSpacePiece).size());
      else if (type(id) == kNormal && !token.empty() && !bracketed(token))
        token.insert(0, "##");
    }
    default_id(spec.unk, 100);
    CHECK_FILE(spec.unk >= 0, "{}: tokenizer.ggml.unknown_token_id is missing", origin);
    m.unk_token = m.tokens[static_cast<size_t>(spec.unk)];
    int32_t cls = in.cls_id >= 0 ? in.cls_id : spec.bos, sep = in.sep_id;
    default_id(cls, 101);
    default_id(sep, 102);
    if (cls >= 0) spec.prefix = {cls};
    if (sep >= 0) spec.suffix = {sep};
    const bool lower = in.lowercase.value_or(true);
    spec.normalizers = {{.kind = NormalizerStep::bert,
                         .drop_accents = in.strip_accents.value_or(lower),
                         .lower = lower}};
    spec.pre_steps = {{.kind = PreStep::whitespace_split}, {.kind = PreStep::punctuation}};
    spec.decoders = {{.kind = DecodeStep::word_piece, .content = "##"}};
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
  if (vocab.model == "gpt2" || vocab.model == "whitespace")
    reader.bpe(vocab.pre);
  else if (vocab.model == "gemma4")
    reader.bpe("gemma4");
  else if (vocab.model == "llama" || vocab.model == "t5")
    reader.sentence_piece(vocab.model == "t5");
  else if (vocab.model == "bert")
    reader.word_piece();
  else
    fail(ErrorKind::bad_file,
         "{}: tokenizer.ggml.model '{}' is not supported; gpt2 and gemma4 (BPE), llama and t5 "
         "(SentencePiece), and bert (WordPiece) are",
         origin, vocab.model);
  return built(std::move(reader.spec), origin);
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
  CHECK(
      spec.model.kind == ModelSpec::bpe,
      "writing a tokenizer that is not BPE into a GGUF file is not supported; export as a Hugging "
      "Face folder instead");
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
  out.scores.assign(spec.model.scores.begin(), spec.model.scores.end());
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
