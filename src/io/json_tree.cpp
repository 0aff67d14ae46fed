// Thin: every kind of value has one constructor here, so that nlohmann's are compiled once.
#include "io/json_tree.h"

#include <nlohmann/json.hpp>

namespace supersonic::io {
namespace {

using Ordered = nlohmann::ordered_json;

Ordered::error_handler_t handler(JsonTree::Utf8 handling) {
  return handling == JsonTree::Utf8::strict ? Ordered::error_handler_t::strict
                                            : Ordered::error_handler_t::replace;
}

}  // namespace

JsonTree::JsonTree() : value_(std::make_unique<Ordered>()) {}
JsonTree::JsonTree(Ordered&& value) : value_(std::make_unique<Ordered>(std::move(value))) {}
JsonTree::JsonTree(Flag flag) : JsonTree(Ordered(flag.value)) {}
JsonTree::JsonTree(double number) : JsonTree(Ordered(number)) {}
JsonTree::JsonTree(Text text) : JsonTree(Ordered(std::string(text.value))) {}
JsonTree::JsonTree(JsonView value) : JsonTree(value ? Ordered(*value.value_) : Ordered()) {}
JsonTree::JsonTree(const JsonTree& other) : value_(std::make_unique<Ordered>(*other.value_)) {}
JsonTree::JsonTree(JsonTree&&) noexcept = default;
JsonTree& JsonTree::operator=(const JsonTree& other) {
  value_ = std::make_unique<Ordered>(*other.value_);
  return *this;
}
JsonTree& JsonTree::operator=(JsonTree&&) noexcept = default;
JsonTree::~JsonTree() = default;

JsonTree JsonTree::whole(std::int64_t number) { return JsonTree(Ordered(number)); }
JsonTree JsonTree::natural(std::uint64_t number) { return JsonTree(Ordered(number)); }

JsonTree JsonTree::object(std::initializer_list<Member> members) {
  JsonTree out(Ordered::object());
  for (const Member& m : members) out.set(m.key, m.value);
  return out;
}

JsonTree JsonTree::object(const std::map<std::string, JsonTree>& members) {
  JsonTree out(Ordered::object());
  for (const auto& [key, value] : members) out.set(key, value);
  return out;
}

JsonTree JsonTree::array(std::initializer_list<JsonTree> items) {
  JsonTree out(Ordered::array());
  for (const JsonTree& item : items) out.push_back(item);
  return out;
}

JsonTree JsonTree::array(std::span<const std::int64_t> numbers) {
  JsonTree out(Ordered::array());
  for (const std::int64_t n : numbers) out.value_->push_back(n);
  return out;
}

JsonTree JsonTree::array(std::span<const double> numbers) {
  JsonTree out(Ordered::array());
  for (const double x : numbers) out.value_->push_back(x);
  return out;
}

JsonTree JsonTree::parse(std::string_view text) { return JsonTree(Ordered::parse(text)); }

JsonTree& JsonTree::set(std::string_view key, JsonTree value) {
  (*value_)[std::string(key)] = std::move(*value.value_);
  return *this;
}

JsonTree& JsonTree::push_back(JsonTree value) {
  value_->push_back(std::move(*value.value_));
  return *this;
}

void JsonTree::erase(std::string_view key) {
  if (value_->is_object()) value_->erase(std::string(key));
}
bool JsonTree::contains(std::string_view key) const { return value_->contains(std::string(key)); }
std::size_t JsonTree::size() const { return value_->size(); }

std::string JsonTree::dump(int indent, Utf8 handling) const {
  return value_->dump(indent, ' ', false, handler(handling));
}

std::string json_quoted(std::string_view text, JsonTree::Utf8 handling) {
  return Ordered(std::string(text)).dump(-1, ' ', false, handler(handling));
}

}  // namespace supersonic::io
