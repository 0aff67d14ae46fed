// A small state machine over nlohmann's SAX events; see the header. Levels: 0 outside, 1 the header
// object, 2 one tensor's object or __metadata__, 3 shape or data_offsets. Unknown fields of a
// tensor are skipped, as the reference does.
#include "io/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/json.h"

namespace supersonic::io {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxDims = 32;
constexpr int kMaxSkippedDepth = 32;

class HeaderReader {
 public:
  HeaderReader(SafeTensorsHeader& out, std::string_view text, const std::string& file)
      : out_(out), text_(text), file_(file) {}

  bool null() { return scalar("null"); }
  bool boolean(bool) { return scalar("a boolean"); }
  bool number_integer(json::number_integer_t) { return scalar("a negative number"); }
  bool number_float(json::number_float_t, const std::string&) { return scalar("a fraction"); }
  bool binary(json::binary_t&) { return scalar("binary data"); }
  bool number_unsigned(json::number_unsigned_t v) {
    if (skipping()) return true;
    if (level_ != 3) return scalar("a number");
    auto& tensor = out_.tensors.back();
    if (field_ == Field::shape) {
      if (tensor.shape.size() == kMaxDims) bad("shape has more than {} dimensions", kMaxDims);
      tensor.shape.push_back(v);
    } else {
      if (offsets_ >= 2) bad("data_offsets holds more than 2 numbers");
      (offsets_++ == 0 ? tensor.begin : tensor.end) = v;
    }
    return true;
  }
  bool string(std::string& v) {
    if (skipping()) return true;
    if (in_metadata_ && level_ == 2) {
      out_.metadata.back().second = v;
      return true;
    }
    if (level_ != 2 || field_ != Field::dtype) return scalar("a string");
    out_.tensors.back().dtype = v;
    seen_ |= 1;
    return true;
  }
  bool start_object(std::size_t) {
    if (level_ == 2 && field_ == Field::unknown) return skip();
    if (level_ >= 2 || (level_ == 1 && field_ != Field::tensor))
      bad("an object where a value was expected");
    if (level_ == 0) field_ = Field::none;
    ++level_;
    seen_ = 0;
    return true;
  }
  bool end_object() {
    if (unskip()) return true;
    if (level_ == 2 && !in_metadata_ && seen_ != 7) bad("dtype, shape and data_offsets are needed");
    --level_;
    in_metadata_ = false;
    field_ = Field::none;
    return true;
  }
  bool start_array(std::size_t) {
    if (level_ == 2 && !in_metadata_ && field_ == Field::unknown) return skip();
    if (level_ != 2 || in_metadata_ || (field_ != Field::shape && field_ != Field::offsets))
      bad("an array where a value was expected");
    ++level_;
    offsets_ = 0;
    return true;
  }
  bool end_array() {
    if (unskip()) return true;
    if (field_ == Field::offsets && offsets_ != 2)
      bad("data_offsets holds {} numbers, 2 were expected", offsets_);
    seen_ |= field_ == Field::shape ? 2 : 4;
    --level_;
    return true;
  }
  bool key(std::string& k) {
    if (skipped_ > 0) return true;
    if (level_ == 1) {
      in_metadata_ = k == "__metadata__";
      field_ = Field::tensor;
      if (!in_metadata_) out_.tensors.push_back({k, {}, {}, 0, 0});
    } else if (in_metadata_) {
      out_.metadata.emplace_back(k, "");
    } else {
      field_ = k == "dtype"          ? Field::dtype
               : k == "shape"        ? Field::shape
               : k == "data_offsets" ? Field::offsets
                                     : Field::unknown;
      const int bit = field_ == Field::dtype     ? 1
                      : field_ == Field::shape   ? 2
                      : field_ == Field::offsets ? 4
                                                 : 0;
      if (seen_ & bit) bad("{} stands twice", k);
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) {
    const std::size_t offset = std::min(position ? position - 1 : 0, text_.size());
    std::string reason = e.what();
    if (const auto colon = reason.find(": "); colon != std::string::npos)
      reason.erase(0, colon + 2);
    fail(ErrorKind::bad_file, "{}: byte {}: the header is not valid JSON: {}", file_, offset + 8,
         reason.substr(0, 300));
  }

 private:
  enum class Field { none, tensor, dtype, shape, offsets, unknown };

  template <class... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> format, Args&&... args) const {
    const std::string what = fmt::format(format, std::forward<Args>(args)...);
    if (in_metadata_ || out_.tensors.empty())
      fail(ErrorKind::bad_file, "{}: header: __metadata__: {}", file_, what);
    fail(ErrorKind::bad_file, "{}: header: tensor \"{}\": {}", file_,
         out_.tensors.back().name.substr(0, 200), what);
  }
  bool skipping() const {
    return skipped_ > 0 || (level_ == 2 && !in_metadata_ && field_ == Field::unknown);
  }
  bool scalar(const char* what) const {
    if (skipping()) return true;
    bad("{} where something else was expected", what);
  }
  bool skip() {
    if (++skipped_ > kMaxSkippedDepth)
      bad("a field nested deeper than {} levels", kMaxSkippedDepth);
    return true;
  }
  bool unskip() {
    if (skipped_ == 0) return false;
    --skipped_;
    return true;
  }

  SafeTensorsHeader& out_;
  std::string_view text_;
  const std::string& file_;
  int level_ = 0, skipped_ = 0, offsets_ = 0, seen_ = 0;
  bool in_metadata_ = false;
  Field field_ = Field::none;
};

}  // namespace

SafeTensorsHeader parse_safetensors_header(std::string_view text, const std::string& file) {
  SafeTensorsHeader header;
  HeaderReader reader(header, text, file);
  json::sax_parse(text.begin(), text.end(), &reader);
  return header;
}

}  // namespace supersonic::io
