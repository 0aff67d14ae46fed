// The limits are a SAX filter in front of nlohmann's own DOM builder; see the header.
#include "io/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "core/error.h"
#include "io/mapped_file.h"

namespace supersonic::io {

namespace {

using nlohmann::json;

class LimitedBuilder {
 public:
  LimitedBuilder(json& root, std::string_view text, const std::string& file,
                 const JsonLimits& limits)
      : dom_(root, true), text_(text), file_(file), limits_(limits) {}

  bool null() { return count() && dom_.null(); }
  bool boolean(bool v) { return count() && dom_.boolean(v); }
  bool number_integer(json::number_integer_t v) { return count() && dom_.number_integer(v); }
  bool number_unsigned(json::number_unsigned_t v) { return count() && dom_.number_unsigned(v); }
  bool number_float(json::number_float_t v, const std::string& s) {
    return count() && dom_.number_float(v, s);
  }
  bool string(std::string& v) { return count() && dom_.string(v); }
  bool binary(json::binary_t& v) { return dom_.binary(v); }
  bool start_object(std::size_t n) {
    enter();
    keys_.emplace_back();
    return dom_.start_object(n);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return dom_.end_object();
  }
  bool start_array(std::size_t n) {
    enter();
    return dom_.start_array(n);
  }
  bool end_array() {
    --depth_;
    return dom_.end_array();
  }
  bool key(std::string& k) {
    count();
    CHECK_FILE(keys_.back().insert(k).second, "{}: the JSON key \"{}\" stands twice in one object",
               file_, k.substr(0, 200));
    return dom_.key(k);
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& e) {
    const std::size_t offset = std::min(position ? position - 1 : 0, text_.size());
    std::string reason = e.what();  // "[json.exception...] parse error at line L, column C: reason"
    if (const auto colon = reason.find(": "); colon != std::string::npos)
      reason.erase(0, colon + 2);
    (void)token;
    fail(ErrorKind::bad_file, "{}:{}: not valid JSON (byte {}): {}", file_,
         line_and_column(text_, offset), offset, reason.substr(0, 300));
  }

 private:
  bool count() {
    CHECK_FILE(++values_ <= limits_.max_values, "{}: more than {} JSON values", file_,
               limits_.max_values);
    return true;
  }
  void enter() {
    count();
    CHECK_FILE(++depth_ <= limits_.max_depth, "{}: JSON nested deeper than {} levels", file_,
               limits_.max_depth);
  }

  nlohmann::detail::json_sax_dom_parser<json> dom_;
  std::string_view text_;
  const std::string& file_;
  const JsonLimits& limits_;
  int depth_ = 0;
  std::size_t values_ = 0;
  std::vector<std::set<std::string, std::less<>>> keys_;
};

}  // namespace

std::string line_and_column(std::string_view text, std::size_t offset) {
  const auto before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const auto last = before.rfind('\n');
  return fmt::format("{}:{}", line, before.size() - (last == before.npos ? 0 : last + 1) + 1);
}

JsonDocument::JsonDocument() = default;
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

JsonDocument::JsonDocument(std::string_view text, const std::string& file, const JsonLimits& limits)
    : root_(std::make_unique<json>()) {
  CHECK_FILE(text.size() <= limits.max_bytes,
             "{}: {} bytes of JSON, more than the {} that are allowed here", file, text.size(),
             limits.max_bytes);
  LimitedBuilder builder(*root_, text, file, limits);
  json::sax_parse(text.begin(), text.end(), &builder);
}

JsonDocument JsonDocument::read(const std::string& path, const JsonLimits& limits) {
  const MappedFile file = MappedFile::open(path);
  return {file.text(), path, limits};
}

JsonDocument JsonDocument::attempt(std::string_view text) {
  JsonDocument out;
  json root = json::parse(text, nullptr, false);
  if (!root.is_discarded()) out.root_ = std::make_unique<json>(std::move(root));
  return out;
}

bool JsonView::is_null() const { return value_ && value_->is_null(); }
bool JsonView::is_object() const { return value_ && value_->is_object(); }
bool JsonView::is_array() const { return value_ && value_->is_array(); }
bool JsonView::is_string() const { return value_ && value_->is_string(); }
bool JsonView::is_number() const { return value_ && value_->is_number(); }
bool JsonView::is_integer() const { return value_ && value_->is_number_integer(); }

std::optional<bool> JsonView::boolean() const {
  if (!value_ || !value_->is_boolean()) return std::nullopt;
  return value_->get<bool>();
}

std::optional<std::string> JsonView::text() const {
  if (!is_string()) return std::nullopt;
  return value_->get_ref<const std::string&>();
}

std::optional<double> JsonView::number() const {
  if (!is_number()) return std::nullopt;
  return value_->get<double>();
}

std::optional<std::int64_t> JsonView::integer() const {
  if (!is_number()) return std::nullopt;
  if (value_->is_number_unsigned()) {
    const auto u = value_->get<std::uint64_t>();
    if (u > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<std::int64_t>(u);
  }
  if (value_->is_number_integer()) return value_->get<std::int64_t>();
  const double d = value_->get<double>();
  if (d == std::floor(d) && std::abs(d) < 9e15) return static_cast<std::int64_t>(d);
  return std::nullopt;
}

std::size_t JsonView::size() const {
  return value_ && value_->is_structured() ? value_->size() : 0;
}

JsonView JsonView::find(std::string_view key) const {
  if (!is_object()) return {};
  const auto it = value_->find(key);
  return it == value_->end() ? JsonView() : JsonView(*it);
}

std::vector<JsonView> JsonView::items() const {
  if (!is_array()) return {};
  return {value_->begin(), value_->end()};
}

std::vector<std::pair<std::string, JsonView>> JsonView::members() const {
  std::vector<std::pair<std::string, JsonView>> out;
  if (is_object())
    for (auto it = value_->begin(); it != value_->end(); ++it) out.emplace_back(it.key(), *it);
  return out;
}

std::string JsonView::dump() const { return value_ ? value_->dump() : std::string(); }

std::string JsonView::excerpt() const {
  if (!value_) return "missing";
  if (value_->is_structured()) return value_->is_array() ? "a list" : "an object";
  std::string text = value_->dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "…" : text;
}

}  // namespace supersonic::io
