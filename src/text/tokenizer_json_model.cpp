// The models of tokenizer.json. A file of an old version may leave the type out; it is then told by
// the members, as the `tokenizers` crate does.
#include <algorithm>
#include <cmath>

#include "text/token_index.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {
namespace {

using json::array;
using json::element;
using json::Field;
using json::object;

constexpr size_t kMaxTokenBytes = 1 << 20;

}  // namespace

void read_json_vocab(const Field& vocab, ModelSpec& model) {
  object entries;
  if (vocab.value.get(entries)) vocab.wrong("an object of token to id");
  const size_t count =
      entries.size() >= 0xFFFFFF ? std::distance(entries.begin(), entries.end()) : entries.size();
  const auto limit = static_cast<int64_t>(
      count * 8 + 65536);  // ids may have holes, but a lying one must not allocate
  int64_t size = 0;
  for (const auto& [key, value] : entries) {
    int64_t id = -1;
    CHECK_FILE(!value.get(id) && id >= 0 && id < limit, "{}['{}']: must be an id from 0 to {}",
               vocab.path, key, limit - 1);
    CHECK_FILE(key.size() <= kMaxTokenBytes, "{}: token {} is longer than {} bytes", vocab.path, id,
               kMaxTokenBytes);
    size = std::max(size, id + 1);
  }
  model.tokens.resize(static_cast<size_t>(size));
  for (const auto& [key, value] : entries) {
    std::string& token = model.tokens[static_cast<size_t>(int64_t(value))];
    CHECK_FILE(token.empty(), "{}['{}']: has the same id as '{}'", vocab.path, key, token);
    token = key;
  }
}

std::string add_merge(ModelSpec& model, const TokenIndex& index, std::string_view left,
                      std::string_view right) {
  const bool prefixed =
      !model.subword_prefix.empty() && right.size() >= model.subword_prefix.size();
  std::string joined(left);
  joined.append(prefixed ? right.substr(model.subword_prefix.size()) : right);
  const MergeRule rule{index.find(left), index.find(right), index.find(joined),
                       static_cast<uint32_t>(model.merges.size())};
  if (rule.left < 0) return fmt::format("'{}' is not in the vocabulary", left);
  if (rule.right < 0) return fmt::format("'{}' is not in the vocabulary", right);
  if (rule.result < 0) return fmt::format("the result '{}' is not in the vocabulary", joined);
  model.merges.push_back(rule);
  return {};
}

namespace {

std::pair<std::string_view, std::string_view> merge_pair(const Field& merges, element item,
                                                         size_t index) {
  std::string_view joined;
  if (!item.get(joined)) {
    const size_t space = joined.find(' ');
    CHECK_FILE(space != joined.npos && joined.find(' ', space + 1) == joined.npos,
               "{}[{}]: '{}' must be two tokens with one space between", merges.path, index,
               joined);
    return {joined.substr(0, space), joined.substr(space + 1)};
  }
  array pair;
  std::string_view left, right;
  CHECK_FILE(!item.get(pair) && pair.size() == 2 && !pair.at(0).get(left) && !pair.at(1).get(right),
             "{}[{}]: must be \"left right\" or [left, right]", merges.path, index);
  return {left, right};
}

void read_merges(const Field& merges, ModelSpec& model) {
  array list;
  if (merges.value.get(list)) merges.wrong("an array");
  TokenIndex index;
  index.build(model.tokens);
  for (const element item : list) {
    const size_t n = model.merges.size();
    const auto [left, right] = merge_pair(merges, item, n);
    const std::string wrong = add_merge(model, index, left, right);
    CHECK_FILE(wrong.empty(), "{}[{}]: {}", merges.path, n, wrong);
  }
}

void read_bpe(const Field& field, ModelSpec& model) {
  if (const auto dropout = field.get("dropout")) {
    double p = 0;
    CHECK_FILE(!dropout->value.get(p) && p == 0,
               "{}: leaving merges out at random is not supported; set it to null", dropout->path);
  }
  model.unk_token = field.text("unk_token", "");
  model.subword_prefix = field.text("continuing_subword_prefix", "");
  model.word_suffix = field.text("end_of_word_suffix", "");
  model.fuse_unk = field.flag("fuse_unk", false);
  model.byte_fallback = field.flag("byte_fallback", false);
  model.ignore_merges = field.flag("ignore_merges", false);
  read_json_vocab(field.need("vocab"), model);
  read_merges(field.need("merges"), model);
}

// An array of [token, log probability], by id.
void read_scored_vocab(const Field& vocab, ModelSpec& model) {
  array list;
  if (vocab.value.get(list)) vocab.wrong("an array of [token, score]");
  for (const element item : list) {
    array pair;
    std::string_view token;
    double score = 0;
    const size_t id = model.tokens.size();
    CHECK_FILE(!item.get(pair) && pair.size() == 2 && !pair.at(0).get(token) &&
                   !pair.at(1).get(score) && std::isfinite(score),
               "{}[{}]: must be [token, score]", vocab.path, id);
    CHECK_FILE(token.size() <= kMaxTokenBytes, "{}[{}]: is longer than {} bytes", vocab.path, id,
               kMaxTokenBytes);
    model.tokens.emplace_back(token);
    model.scores.push_back(score);
  }
}

void read_unigram(const Field& field, ModelSpec& model) {
  model.kind = ModelSpec::unigram;
  model.byte_fallback = field.flag("byte_fallback", false);
  model.fuse_unk = true;
  read_scored_vocab(field.need("vocab"), model);
  const auto last = static_cast<int64_t>(model.tokens.size()) - 1;
  if (const auto unk = field.get("unk_id"))
    model.unk_id = static_cast<int32_t>(unk->integer(0, std::max<int64_t>(last, 0)));
  for (const char* key : {"alpha", "nbest_size"})
    CHECK_FILE(!field.get(key), "{}.{}: sampling is not supported; set it to null", field.path,
               key);
}

void read_word_piece(const Field& field, ModelSpec& model) {
  model.kind = ModelSpec::word_piece;
  model.unk_token = field.need("unk_token").string();
  model.subword_prefix = field.need("continuing_subword_prefix").string();
  model.longest_word =
      static_cast<uint32_t>(field.need("max_input_chars_per_word").integer(0, INT32_MAX));
  read_json_vocab(field.need("vocab"), model);
}

void read_word_level(const Field& field, ModelSpec& model) {
  model.kind = ModelSpec::word_level;
  model.unk_token = field.need("unk_token").string();
  read_json_vocab(field.need("vocab"), model);
}

}  // namespace

void read_json_model(const Field& field, ModelSpec& model) {
  const auto type = field.get("type");
  const std::string_view name = type                                    ? type->string()
                                : field.get("merges")                   ? "BPE"
                                : field.get("max_input_chars_per_word") ? "WordPiece"
                                : field.need("vocab").value.is_array()  ? "Unigram"
                                                                        : "WordLevel";
  if (name == "BPE") return read_bpe(field, model);
  if (name == "Unigram") return read_unigram(field, model);
  if (name == "WordPiece") return read_word_piece(field, model);
  if (name == "WordLevel") return read_word_level(field, model);
  fail(ErrorKind::bad_file,
       "{}.type: model '{}' is not supported; BPE, Unigram, WordPiece and WordLevel are",
       field.path, name);
}

}  // namespace supersonic::text
