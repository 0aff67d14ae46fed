// Values of tokenizer.json with their paths: every read checks type and range, and an error names
// the field.
#pragma once
#include <fmt/core.h>
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace supersonic::text {

struct AddedToken;
struct ModelSpec;
struct TokenizerSpec;
class TokenIndex;

namespace json {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

// A value with its path, which errors show.
struct Field {
  element value;
  std::string path;

  [[noreturn]] void wrong(std::string_view want) const {
    fail(ErrorKind::bad_file, "{}: must be {}", path, want);
  }
  bool null() const { return value.type() == element_type::NULL_VALUE; }
  // A member that is present and not null.
  std::optional<Field> get(std::string_view key) const {
    element member;
    if (value.type() != element_type::OBJECT) wrong("an object");
    if (object(value).at_key(key).get(member) || member.type() == element_type::NULL_VALUE)
      return std::nullopt;
    return Field{member, path + "." + std::string(key)};
  }
  Field need(std::string_view key) const {
    if (auto field = get(key)) return *field;
    fail(ErrorKind::bad_file, "{}.{}: is missing", path, key);
  }
  std::string_view string() const {
    std::string_view s;
    if (value.get(s)) wrong("a string");
    return s;
  }
  bool boolean() const {
    bool b = false;
    if (value.get(b)) wrong("true or false");
    return b;
  }
  int64_t integer(int64_t low, int64_t high) const {
    int64_t n = 0;
    if (value.get(n) || n < low || n > high)
      wrong(fmt::format("an integer from {} to {}", low, high));
    return n;
  }
  std::vector<Field> items() const {
    array list;
    if (value.get(list)) wrong("an array");
    std::vector<Field> out;
    for (const element item : list)
      out.push_back({item, path + "[" + std::to_string(out.size()) + "]"});
    return out;
  }
  bool flag(std::string_view key, bool otherwise) const {
    const auto field = get(key);
    return field ? field->boolean() : otherwise;
  }
  std::string text(std::string_view key, std::string_view otherwise) const {
    const auto field = get(key);
    return std::string(field ? field->string() : otherwise);
  }
};

// The root of a text, as deep and as large as a tokenizer may be. path: what messages call it.
Field parse(simdjson::dom::parser& parser, std::string_view text, std::string path);

}  // namespace json

// The member "model": BPE, Unigram, WordPiece or WordLevel.
void read_json_model(const json::Field& field, ModelSpec& model);
// An object of token to id.
void read_json_vocab(const json::Field& vocab, ModelSpec& model);
// The next merge of a BPE model, of words that must be in its vocabulary. Says what is wrong with
// it; empty: it was added.
std::string add_merge(ModelSpec& model, const TokenIndex& index, std::string_view left,
                      std::string_view right);

// {"content": …, "special": …}, without its id.
AddedToken read_added_token(const json::Field& item);
// added_tokens_decoder: {"32000": {"content": …}, …}; what has an id already keeps it.
void read_added_decoder(const json::Field& field, TokenizerSpec& spec);
// tokenizer_config.json: which tokens are BOS, EOS, padding and unknown.
void read_json_config(std::string_view config, std::string_view origin, TokenizerSpec& spec);
// -1 when no token is spelled so.
int32_t find_id(const TokenizerSpec& spec, std::string_view content);

}  // namespace supersonic::text
