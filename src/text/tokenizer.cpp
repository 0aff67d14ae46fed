// The pipeline: repair, added tokens, normalizers, pre-tokenizers, model. Working memory (buffers
// and the word cache) is leased from a small pool, so that threads do not share it and a sequence
// of calls keeps its cache.
#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "core/error.h"
#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"
#include "text/word_model.h"

namespace supersonic::text {
namespace {

// As repair_utf8, with origins: those of `text` become those of the repaired text.
void repair_followed(std::string_view text, std::string& out, Origins& origins) {
  Rewriter repaired({text, origins.data()});
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.kind == Utf8Step::valid)
      repaired.copy(at, at + step.bytes);
    else
      repaired.replace(at, at + step.bytes, "\xEF\xBF\xBD");
    at += step.bytes;
  }
  repaired.finish(out, origins);
}

// Tokens that end a turn, by name: what models in the field use beside their declared EOS.
constexpr std::string_view kStopNames[] = {"<|im_end|>",
                                           "<|eot_id|>",
                                           "<|eom_id|>",
                                           "<|end|>",
                                           "<end_of_turn>",
                                           "<|endoftext|>",
                                           "<|end_of_text|>",
                                           "<EOT>",
                                           "<|eot|>",
                                           "<|return|>",
                                           "<|call|>",
                                           "<｜end▁of▁sentence｜>",
                                           "<end_of_utterance>",
                                           "<|END_OF_TURN_TOKEN|>"};

// Ids, and where they end when the text is followed.
struct IdSink final : WordSink {
  IdSink(const WordModel& m, ModelScratch& s, Encoded& o) : model(m), scratch(s), out(o) {}
  void word(Stretch word) override {
    if (word.origin)
      model.encode_followed(word, scratch, out.ids, out.ends);
    else
      model.encode(word.text, scratch, out.ids);
  }
  void added(int32_t id, Stretch spelling) {
    out.ids.push_back(id);
    if (spelling.origin) out.ends.push_back(spelling.origin[spelling.text.size() - 1].end);
  }
  const WordModel& model;
  ModelScratch& scratch;
  Encoded& out;
};

bool raw_bytes(const TokenizerSpec& spec) {
  return spec.model.kind == ModelSpec::bpe && !spec.pre_steps.empty() &&
         spec.pre_steps.back().kind == PreStep::byte_level && !spec.model.byte_fallback &&
         spec.model.subword_prefix.empty() && spec.model.word_suffix.empty();
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerSpec s)
      : spec(std::move(s)),
        normalizer(spec.normalizers),
        pre_tokenizer(spec.pre_steps, raw_bytes(spec)),
        model(make_word_model(spec.model, raw_bytes(spec))),
        decoder(spec.decoders) {
    size = static_cast<int32_t>(spec.model.tokens.size());
    for (const AddedToken& t : spec.added) size = std::max(size, t.id + 1);
    check_ids();
    add_tokens();
    fill_pieces();
    fill_stops();
  }

  void check_ids() const {
    const auto in_range = [&](int32_t id, const char* field) {
      CHECK_FILE(id >= -1 && id < size, "{}: id {} is outside the vocabulary of {}", field, id,
                 size);
    };
    for (const AddedToken& t : spec.added)
      CHECK_FILE(t.id >= 0, "added_tokens: '{}' has no id", t.content);
    for (const int32_t id : spec.prefix) in_range(id, "post_processor");
    for (const int32_t id : spec.suffix) in_range(id, "post_processor");
    in_range(spec.bos, "bos_token_id");
    in_range(spec.eos, "eos_token_id");
    in_range(spec.eot, "eot_token_id");
    in_range(spec.unk, "unknown_token_id");
    in_range(spec.pad, "padding_token_id");
  }

  void add_tokens() {
    special.assign(static_cast<size_t>(size), 0);
    added_of.assign(static_cast<size_t>(size), -1);
    std::vector<AddedTokens::Entry> raw_entries, normalized_entries;
    for (size_t i = 0; i < spec.added.size(); ++i) {
      const AddedToken& t = spec.added[i];
      special[static_cast<size_t>(t.id)] = t.special;
      added_of[static_cast<size_t>(t.id)] = static_cast<int32_t>(i);
      std::string content = t.content;
      if (t.normalized) normalizer.apply(content, nullptr);
      added_text.push_back(content);
      (t.normalized ? normalized_entries : raw_entries).push_back({std::move(content), t});
    }
    raw.build(std::move(raw_entries));
    normalized.build(std::move(normalized_entries));
  }

  std::string_view token(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    if (added_of[i] >= 0) return spec.added[static_cast<size_t>(added_of[i])].content;
    return i < spec.model.tokens.size() ? std::string_view(spec.model.tokens[i])
                                        : std::string_view();
  }

  // What a decoder sees: for a normalized added token its normalized form, as the crate has it.
  std::string_view decoder_token(int32_t id) const {
    const int32_t added = added_of[static_cast<size_t>(id)];
    return added >= 0 ? std::string_view(added_text[static_cast<size_t>(added)]) : token(id);
  }

  void fill_pieces() {
    piece_start.reserve(static_cast<size_t>(size) + 1);
    for (int32_t id = 0; id < size; ++id) {
      piece_start.push_back(pieces.size());
      pieces += special[static_cast<size_t>(id)] ? std::string(token(id))
                                                 : decoder.piece(decoder_token(id));
    }
    piece_start.push_back(pieces.size());
  }

  void fill_stops() {
    for (const int32_t id : {spec.eos, spec.eot})
      if (id >= 0 && std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
    for (const AddedToken& t : spec.added)
      if (t.special &&
          std::find(std::begin(kStopNames), std::end(kStopNames), t.content) !=
              std::end(kStopNames) &&
          std::find(stops.begin(), stops.end(), t.id) == stops.end())
        stops.push_back(t.id);
  }

  // One encoding's working memory, given back to the pool at the end.
  struct Lease {
    explicit Lease(const Impl& i) : impl(i) {
      const std::lock_guard lock(impl.pool_mutex);
      if (!impl.pool.empty()) {
        scratch = std::move(impl.pool.back());
        impl.pool.pop_back();
      } else {
        scratch = std::make_unique<ModelScratch>();
      }
    }
    ~Lease() {
      if (scratch->symbols.capacity() > (1u << 20)) scratch->symbols = {}, scratch->heap = {};
      if (scratch->paths.capacity() > (1u << 20)) scratch->paths = {};
      const std::lock_guard lock(impl.pool_mutex);
      if (impl.pool.size() < 64) impl.pool.push_back(std::move(scratch));
    }
    const Impl& impl;
    std::unique_ptr<ModelScratch> scratch;
  };

  // Whether the normalizers drop the first character of a text. What Metaspace's "first" asks is
  // whether the text still begins where the input did.
  bool drops_start(std::string_view text) const {
    std::string with(text.substr(0, utf8_length(static_cast<unsigned char>(text[0])))),
        without = "x";
    with += without;
    normalizer.apply(with, nullptr);
    normalizer.apply(without, nullptr);
    return with == without;
  }

  void encode_piece(Stretch in, bool at_start, bool special_allowed, IdSink& sink) const {
    std::string changed;
    Origins origins;
    if (!normalizer.empty()) {
      if (at_start && pre_tokenizer.asks_for_start() && !in.text.empty() && drops_start(in.text))
        at_start = false;
      changed = in.text;
      if (in.origin) origins.assign(in.origin, in.origin + in.text.size());
      normalizer.apply(changed, in.origin ? &origins : nullptr);
      in = {changed, in.origin ? origins.data() : nullptr};
    }
    if (normalized.empty()) return pre_tokenizer.split(in, at_start, sink);
    std::vector<AddedPart> parts;
    normalized.split(in, special_allowed, parts);
    for (const AddedPart& part : parts) {
      const Stretch piece = in.part(part.begin, part.end);
      if (part.id >= 0)
        sink.added(part.id, piece);
      else
        pre_tokenizer.split(piece, at_start && part.begin == 0, sink);
    }
  }

  // Appends; ends only where `in` has origins.
  void encode(Stretch in, bool special_allowed, Encoded& out) const {
    Lease lease(*this);
    IdSink sink(*model, *lease.scratch, out);
    if (raw.empty()) return encode_piece(in, true, special_allowed, sink);
    std::vector<AddedPart> parts;
    raw.split(in, special_allowed, parts);
    for (const AddedPart& part : parts) {
      const Stretch piece = in.part(part.begin, part.end);
      if (part.id >= 0)
        sink.added(part.id, piece);
      else
        encode_piece(piece, part.begin == 0, special_allowed, sink);
    }
  }

  TokenizerSpec spec;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<WordModel> model;
  Decoder decoder;
  AddedTokens raw, normalized;
  int32_t size = 0;
  std::vector<uint8_t> special;
  std::vector<int32_t> added_of;        // id -> index in spec.added
  std::vector<std::string> added_text;  // normalized where the token is
  std::string pieces;
  std::vector<size_t> piece_start;
  std::vector<int32_t> stops;
  mutable std::mutex pool_mutex;
  mutable std::vector<std::unique_ptr<ModelScratch>> pool;
};

Tokenizer::Tokenizer(TokenizerSpec spec) : impl_(std::make_unique<Impl>(std::move(spec))) {}
Tokenizer Tokenizer::built(TokenizerSpec spec, std::string_view origin) {
  try {
    return Tokenizer(std::move(spec));
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", origin, error.what());
  }
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string repaired;
  if (!valid_utf8(text)) text = repaired = repair_utf8(text);
  Encoded out;
  out.ids.reserve(text.size() / 4 + 8);
  if (options.add_special) out.ids = impl_->spec.prefix;
  impl_->encode({text, nullptr}, options.parse_special, out);
  if (options.add_special)
    out.ids.insert(out.ids.end(), impl_->spec.suffix.begin(), impl_->spec.suffix.end());
  return std::move(out.ids);
}

void Tokenizer::encode_spans(std::string_view text, std::span<const TextSpan> spans,
                             Encoded& out) const {
  out.ids.clear();
  out.ends.clear();
  CHECK(text.size() <= kMaxFollowed, "encode_spans: a text of {} bytes is too long", text.size());
  Origins origins(text.size());
  size_t at = 0;
  for (const TextSpan& span : spans) {
    CHECK(span.begin == at && span.end >= at && span.end <= text.size(),
          "encode_spans: span [{}, {}) does not go on at byte {} of {}", span.begin, span.end, at,
          text.size());
    for (; at < span.end; ++at) origins[at] = {static_cast<uint32_t>(at + 1), span.trusted};
  }
  CHECK(at == text.size(), "encode_spans: the spans end at byte {} of {}", at, text.size());
  if (text.empty()) return;
  std::string repaired;
  if (!valid_utf8(text)) {
    repair_followed(text, repaired, origins);
    text = repaired;
  }
  out.ids.reserve(text.size() / 4 + 8);
  out.ends.reserve(text.size() / 4 + 8);
  impl_->encode({text, origins.data()}, false, out);
  // Byte fallback may overtake an unknown character; and the last id takes what vanished behind it.
  for (size_t i = 1; i < out.ends.size(); ++i) out.ends[i] = std::max(out.ends[i], out.ends[i - 1]);
  if (!out.ends.empty()) out.ends.back() = static_cast<uint32_t>(at);
}

std::vector<int32_t> Tokenizer::encode_spans(std::string_view text,
                                             std::span<const TextSpan> spans) const {
  Encoded out;
  encode_spans(text, spans, out);
  return std::move(out.ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    CHECK(id >= 0 && id < impl_->size, "decode: id {} is outside the vocabulary of {}", id,
          impl_->size);
    if (skip_special && impl_->special[static_cast<size_t>(id)]) continue;
    if (const std::string_view token = impl_->decoder_token(id); !token.empty())
      tokens.emplace_back(token);
  }
  return impl_->decoder.decode(std::move(tokens));
}

std::string_view Tokenizer::piece(int32_t id) const {
  CHECK(id >= 0 && id < impl_->size, "piece: id {} is outside the vocabulary of {}", id,
        impl_->size);
  const auto i = static_cast<size_t>(id);
  return std::string_view(impl_->pieces)
      .substr(impl_->piece_start[i], impl_->piece_start[i + 1] - impl_->piece_start[i]);
}

std::string_view Tokenizer::token(int32_t id) const {
  CHECK(id >= 0 && id < impl_->size, "token: id {} is outside the vocabulary of {}", id,
        impl_->size);
  return impl_->token(id);
}

const TokenizerSpec& Tokenizer::spec() const { return impl_->spec; }
int32_t Tokenizer::vocab_size() const { return impl_->size; }
int32_t Tokenizer::bos() const { return impl_->spec.bos; }
int32_t Tokenizer::eos() const { return impl_->spec.eos; }
int32_t Tokenizer::eot() const { return impl_->spec.eot; }
int32_t Tokenizer::pad() const { return impl_->spec.pad; }
std::span<const int32_t> Tokenizer::stop_ids() const { return impl_->stops; }
bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < impl_->size && impl_->special[static_cast<size_t>(id)];
}
bool Tokenizer::adds_bos() const {
  return impl_->spec.bos >= 0 && !impl_->spec.prefix.empty() &&
         impl_->spec.prefix[0] == impl_->spec.bos;
}

int32_t Tokenizer::special_id(std::string_view name) const {
  for (const AddedToken& t : impl_->spec.added)
    if (t.content == name) return t.id;
  return -1;
}

int32_t Tokenizer::find(std::string_view token) const {
  const int32_t id = special_id(token);
  return id >= 0 ? id : impl_->model->find(token);
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer),
      skip_special_(skip_special),
      decoding_(std::make_unique<Decoding>(tokenizer.impl_->decoder)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  CHECK(id >= 0 && id < tokenizer_->vocab_size(), "decode: id {} is outside the vocabulary of {}",
        id, tokenizer_->vocab_size());
  std::string out;
  if (skip_special_ && tokenizer_->is_special(id)) return out;
  if (const std::string_view token = tokenizer_->impl_->decoder_token(id); !token.empty())
    decoding_->push(token, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  decoding_->finish(out);
  return out;
}

}  // namespace supersonic::text
