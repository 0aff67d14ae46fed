// The keys of both kinds of model, brought into the form that Tokenizer and ChatTemplate take.
#include "text/model_text.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "io/gguf.h"
#include "io/output_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace supersonic::text {
namespace {

constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{256} << 20;
constexpr std::string_view kTemplateKey = "tokenizer.chat_template";

std::int32_t id_of(const io::GgufFile& file, std::string_view key) {
  const std::int64_t id = file.get_i64(key, -1);
  return id >= 0 && id <= INT32_MAX ? static_cast<std::int32_t>(id) : -1;
}

std::optional<bool> flag_of(const io::GgufFile& file, std::string_view key) {
  if (!file.find(key)) return std::nullopt;
  return file.get_bool(key, false);
}

Tokenizer tokenizer_of(const io::GgufFile& file, const std::string& path) {
  const auto tokens = file.get_strings("tokenizer.ggml.tokens").to_vector();
  std::vector<std::string_view> merges;
  if (file.find("tokenizer.ggml.merges"))
    merges = file.get_strings("tokenizer.ggml.merges").to_vector();
  std::vector<float> scores;
  if (file.find("tokenizer.ggml.scores")) scores = file.get_floats("tokenizer.ggml.scores");
  std::vector<std::int32_t> types;
  if (file.find("tokenizer.ggml.token_type"))
    for (std::int64_t type : file.get_ints("tokenizer.ggml.token_type"))
      types.push_back(static_cast<std::int32_t>(type));
  GgufVocab vocab;
  vocab.model = file.get_string("tokenizer.ggml.model");
  vocab.pre = file.get_string("tokenizer.ggml.pre", "");
  vocab.name = file.get_string("general.name", "");
  vocab.tokens = tokens, vocab.scores = scores, vocab.token_type = types, vocab.merges = merges;
  std::string charsmap;
  if (file.find("tokenizer.ggml.precompiled_charsmap"))
    for (std::int64_t byte : file.get_ints("tokenizer.ggml.precompiled_charsmap"))
      charsmap += static_cast<char>(byte);
  vocab.charsmap = charsmap;
  vocab.sep_id = id_of(file, "tokenizer.ggml.seperator_token_id");
  vocab.cls_id = id_of(file, "tokenizer.ggml.cls_token_id");
  vocab.merge_spaces = flag_of(file, "tokenizer.ggml.remove_extra_whitespaces");
  vocab.lowercase = flag_of(file, "tokenizer.ggml.normalizer.lowercase");
  vocab.strip_accents = flag_of(file, "tokenizer.ggml.normalizer.strip_accents");
  vocab.bos_id = id_of(file, "tokenizer.ggml.bos_token_id");
  vocab.eos_id = id_of(file, "tokenizer.ggml.eos_token_id");
  vocab.eot_id = id_of(file, "tokenizer.ggml.eot_token_id");
  vocab.eom_id = id_of(file, "tokenizer.ggml.eom_token_id");
  vocab.unk_id = id_of(file, "tokenizer.ggml.unknown_token_id");
  vocab.pad_id = id_of(file, "tokenizer.ggml.padding_token_id");
  vocab.add_bos = flag_of(file, "tokenizer.ggml.add_bos_token");
  vocab.add_eos = flag_of(file, "tokenizer.ggml.add_eos_token");
  vocab.add_space_prefix = flag_of(file, "tokenizer.ggml.add_space_prefix");
  return Tokenizer::from_gguf(vocab, path);
}

Tokenizer tokenizer_of(const std::string& folder) {
  const auto path = [&](const char* name) { return folder + "/" + name; };
  const auto there = [&](const char* name) { return std::filesystem::exists(path(name)); };
  const auto read = [&](const char* name) {
    return there(name) ? io::read_file(path(name), kMaxTokenizerBytes) : std::string();
  };
  const std::string config = read("tokenizer_config.json");
  if (there("tokenizer.json"))
    return Tokenizer::from_json(read("tokenizer.json"), config, path("tokenizer.json"));
  if (there("tokenizer.model"))
    return Tokenizer::from_sentence_piece(read("tokenizer.model"), config, path("tokenizer.model"));
  CHECK_FILE(there("vocab.json") && there("merges.txt"),
             "{}: no such file; a model folder needs it, or a tokenizer.model, or vocab.json and "
             "merges.txt, for its tokenizer",
             path("tokenizer.json"));
  return Tokenizer::from_vocab({.vocab = read("vocab.json"),
                                .merges = read("merges.txt"),
                                .config = config,
                                .added_tokens = read("added_tokens.json"),
                                .special_tokens_map = read("special_tokens_map.json")},
                               folder);
}

}  // namespace

ModelText::ModelText(const std::string& path) : path_(path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    config_ = io::read_tokenizer_config(path);
    return;
  }
  owned_ = std::make_unique<io::GgufFile>(io::GgufFile::open(path));
  gguf_ = owned_.get();
}
ModelText::ModelText(const io::GgufFile& opened) : path_(opened.path()), gguf_(&opened) {}
ModelText::~ModelText() = default;
ModelText::ModelText(ModelText&&) noexcept = default;

Tokenizer ModelText::tokenizer() const {
  return gguf_ ? tokenizer_of(*gguf_, path_) : tokenizer_of(path_);
}

std::vector<std::string> ModelText::template_names() const {
  std::vector<std::string> out;
  if (!gguf_) {
    for (const auto& [name, source] : config_.chat_templates) out.push_back(name);
    return out;
  }
  for (const io::GgufValue& v : gguf_->values()) {
    if (v.type != io::GgufType::string || !v.key.starts_with(kTemplateKey)) continue;
    const std::string_view rest = v.key.substr(kTemplateKey.size());
    if (rest.empty() || rest[0] == '.') out.emplace_back(rest.empty() ? "default" : rest.substr(1));
  }
  return out;
}

std::string_view ModelText::template_source(std::string_view name) const {
  if (!gguf_) {
    for (const auto& [key, source] : config_.chat_templates)
      if (key == name) return source;
    return {};
  }
  const std::string key =
      std::string(kTemplateKey) + (name == "default" ? "" : "." + std::string(name));
  return gguf_->get_string(key, "");
}

std::string ModelText::special_text(bool bos) const {
  if (!gguf_) return (bos ? config_.bos_token : config_.eos_token).value_or("");
  const std::int32_t id =
      id_of(*gguf_, bos ? "tokenizer.ggml.bos_token_id" : "tokenizer.ggml.eos_token_id");
  if (id < 0 || !gguf_->find("tokenizer.ggml.tokens")) return {};
  std::int32_t at = 0;
  for (std::string_view token : gguf_->get_strings("tokenizer.ggml.tokens"))
    if (at++ == id) return std::string(token);
  return {};
}

std::unique_ptr<ChatTemplate> ModelText::chat_template(std::string_view name) const {
  const std::string_view source = template_source(name);
  if (source.empty()) return nullptr;
  return std::make_unique<ChatTemplate>(source,
                                        fmt::format("chat template '{}' of {}", name, path_));
}

io::GenerationConfig ModelText::generation() const {
  return gguf_ ? io::GenerationConfig{} : io::read_generation_config(path_);
}

std::vector<std::int32_t> ModelText::stop_ids(const Tokenizer& tokenizer) const {
  const auto own = tokenizer.stop_ids();
  std::vector<std::int32_t> out(own.begin(), own.end());
  for (std::int64_t id : generation().eos_token_ids)
    if (id >= 0 && id < tokenizer.vocab_size()) out.push_back(static_cast<std::int32_t>(id));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

TokenizerView ModelText::view(const Tokenizer& tokenizer) const {
  TokenizerView out;
  out.encode = [&tokenizer](std::string_view text, const std::vector<TextSpan>& spans,
                            Encoded& encoded) { tokenizer.encode_spans(text, spans, encoded); };
  out.bos = tokenizer.bos(), out.eos = tokenizer.eos();
  out.end_of_turn = stop_ids(tokenizer);
  out.add_bos = tokenizer.adds_bos();
  const auto spelling = [&](std::string declared, std::int32_t id) {
    return declared.empty() && id >= 0 ? std::string(tokenizer.token(id)) : declared;
  };
  out.bos_text = spelling(bos_text(), out.bos);
  out.eos_text = spelling(eos_text(), out.eos);
  return out;
}

}  // namespace supersonic::text
