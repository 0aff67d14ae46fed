// A JSON document that is being made: values, lists, and objects whose members keep their order.
// nlohmann writes it; its templates stay in json_tree.cpp, so that who writes a few fields does not
// compile them.
//
//   JsonTree j = JsonTree::object({{"type", "Strip"}, {"start", 1}});
//   j.set("tokens", JsonTree::array({"<s>", "</s>"}));
//   j.dump(2);
#pragma once
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "io/json.h"

namespace supersonic::io {

class JsonTree {
 public:
  struct Member;
  enum class Utf8 { strict, replace };  // text that is not UTF-8: throws, or becomes U+FFFD

  JsonTree();  // null
  JsonTree(std::nullptr_t) : JsonTree() {}
  JsonTree(std::same_as<bool> auto flag) : JsonTree(Flag{flag}) {}
  JsonTree(std::integral auto number) requires(!std::same_as<decltype(number), bool>)
      : JsonTree(integer(number)) {}
  JsonTree(double number);
  // A template, so that braces around two texts do not become the iterators of one.
  template <std::convertible_to<std::string_view> T>
  JsonTree(const T& text) : JsonTree(Text{text}) {}
  explicit JsonTree(JsonView value);  // a copy
  JsonTree(const JsonTree&);
  JsonTree(JsonTree&&) noexcept;
  JsonTree& operator=(const JsonTree&);
  JsonTree& operator=(JsonTree&&) noexcept;
  ~JsonTree();

  static JsonTree object(std::initializer_list<Member> members = {});
  static JsonTree object(const std::map<std::string, JsonTree>& members);
  static JsonTree array(std::initializer_list<JsonTree> items = {});
  static JsonTree array(std::span<const std::int64_t> numbers);
  static JsonTree array(std::span<const double> numbers);
  // A text from a trusted place (no limits; nlohmann's own exceptions).
  static JsonTree parse(std::string_view text);

  // Of an object, which a null becomes: adds a member, or gives one that is there another value.
  JsonTree& set(std::string_view key, JsonTree value);
  JsonTree& push_back(JsonTree value);  // of a list, which a null becomes
  void erase(std::string_view key);     // of an object; nothing where there is no such member
  bool contains(std::string_view key) const;
  std::size_t size() const;
  std::string dump(int indent = -1, Utf8 handling = Utf8::strict) const;

 private:
  struct Flag {
    bool value;
  };
  struct Text {
    std::string_view value;
  };
  explicit JsonTree(Flag flag);
  explicit JsonTree(Text text);
  explicit JsonTree(nlohmann::ordered_json&& value);
  static JsonTree integer(std::integral auto number) {
    if constexpr (std::signed_integral<decltype(number)>)
      return whole(static_cast<std::int64_t>(number));
    else
      return natural(static_cast<std::uint64_t>(number));
  }
  static JsonTree whole(std::int64_t number);
  static JsonTree natural(std::uint64_t number);

  std::unique_ptr<nlohmann::ordered_json> value_;
};

struct JsonTree::Member {
  std::string_view key;
  JsonTree value;
};

// A text in quotes, escaped. Throws where it is not UTF-8.
std::string json_quoted(std::string_view text, JsonTree::Utf8 handling = JsonTree::Utf8::strict);

}  // namespace supersonic::io
