// Translation from Oniguruma's Ruby syntax, and the PCRE2 wrapper.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include "core/error.h"
#include "text/regex_classes.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr uint32_t kMatchLimit = 50'000'000, kDepthLimit = 1'000'000, kHeapLimitKiB = 256 * 1024;

class Translator {
 public:
  Translator(std::string_view in, std::string_view where) : in_(in), where_(where) {}
  std::string run() {
    while (i_ < in_.size()) item();
    return std::move(out_);
  }

 private:
  void item() {
    const char c = in_[i_];
    if (c == '\\') {
      atom_ = out_.size();
      escape(false);
    } else if (c == '[') {
      atom_ = out_.size();
      char_class();
    } else if (c == '(') {
      groups_.push_back(out_.size());
      out_ += c;
      ++i_;
    } else if (c == ')') {
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      out_ += c;
      ++i_;
    } else if (c == '{' && interval()) {
      return;
    } else {
      if (c != '?' && c != '*' && c != '+') atom_ = out_.size();
      const size_t n = utf8_length(static_cast<unsigned char>(c));
      out_.append(in_.substr(i_, n));
      i_ += n;
    }
  }

  // {m,n}+ repeats the interval in Ruby's syntax; PCRE2 would read a possessive interval. {,n}
  // starts at 0.
  bool interval() {
    size_t j = i_ + 1;
    while (j < in_.size() && (std::isdigit(static_cast<unsigned char>(in_[j])) || in_[j] == ','))
      ++j;
    if (j >= in_.size() || in_[j] != '}' || j == i_ + 1) return false;
    std::string body(in_.substr(i_ + 1, j - i_ - 1));
    if (body[0] == ',') body = "0" + body;
    out_ += "{" + body + "}";
    i_ = j + 1;
    if (i_ < in_.size() && in_[i_] == '+') {
      out_.insert(atom_, "(?:");
      out_ += ")+";
      ++i_;
    }
    return true;
  }

  // \p{..} and \P{..}: a category by its short name, from our table; what else there is (scripts)
  // is PCRE2's.
  bool property(bool in_class) {
    const size_t end = in_.find('}', i_);
    CHECK_FILE(end != in_.npos, "{}: the regular expression has an open \\{}{{", where_,
               in_[i_ + 1]);
    std::string_view name = in_.substr(i_ + 3, end - i_ - 3);
    bool negate = in_[i_ + 1] == 'P';
    if (name.starts_with('^')) negate = !negate, name.remove_prefix(1);
    const uint32_t mask = category_by_name(name);
    if (!mask) return false;
    out_ += in_class ? category_items(mask, negate)
                     : (negate ? "[^" : "[") + category_items(mask, false) + "]";
    i_ = end + 1;
    return true;
  }

  void copy_escape() {  // as it stands, with the braces that may follow
    const auto c = static_cast<unsigned char>(in_[i_ + 1]);
    size_t n = 1 + utf8_length(c);
    if ((c == 'p' || c == 'P' || c == 'x') && in_.substr(i_ + 2, 1) == "{")
      n = in_.find('}', i_) + 1 - i_;
    out_.append(in_.substr(i_, n));
    i_ += std::min(n, in_.size() - i_);
  }

  void escape(bool in_class) {
    CHECK_FILE(i_ + 1 < in_.size(), "{}: the regular expression ends in a backslash", where_);
    const char c = in_[i_ + 1];
    if ((c == 'p' || c == 'P') && in_.substr(i_ + 2, 1) == "{") {
      if (!property(in_class)) copy_escape();
      return;
    }
    // Outside a class a negated set is a negated class; inside, its complement is written out.
    const bool upper = c < 'a', negate = upper && in_class;
    const auto set = [&](const std::string& items) {
      out_ += in_class ? items : (upper ? "[^" : "[") + items + "]";
      i_ += 2;
    };
    if (c == 's' || c == 'S') return set(category_items(kSpace, negate));
    if (c == 'w' || c == 'W') return set(word_items(negate));
    if (c == 'd' || c == 'D') return set(category_items(category_mask(Nd), negate));
    if (c == 'h' || c == 'H') return set(negate ? "\\x{0}-/:-@G-`g-\\x{10ffff}" : "0-9a-fA-F");
    if ((c == 'b' || c == 'B') && !in_class) {
      const std::string word = "[" + word_items(false) + "]";
      const std::string edge =
          "(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + ")";
      out_ += (c == 'b' ? "(?:" : "(?!") + edge + ")";
      i_ += 2;
      return;
    }
    copy_escape();
  }

  void char_class() {
    out_ += in_[i_++];
    if (i_ < in_.size() && in_[i_] == '^') out_ += in_[i_++];
    bool first = true;
    while (i_ < in_.size() && (in_[i_] != ']' || first)) {
      first = false;
      CHECK_FILE(in_.substr(i_, 2) != "&&", "{}: && in a character class is not supported", where_);
      if (in_[i_] == '\\') {
        escape(true);
      } else if (in_[i_] == '[') {
        if (in_.substr(i_, 2) == "[:") {
          const size_t end = in_.find(":]", i_ + 2);  // a POSIX class is the same in both
          CHECK_FILE(end != in_.npos, "{}: the regular expression has an open character class",
                     where_);
          out_.append(in_.substr(i_, end + 2 - i_));
          i_ = end + 2;
        } else {
          // A nested set cannot be written in PCRE2; a bracket that stands for itself is escaped in
          // every pattern in use.
          fail(ErrorKind::bad_file, "{}: a set inside a character class is not supported", where_);
        }
      } else {
        const size_t n = utf8_length(static_cast<unsigned char>(in_[i_]));
        out_.append(in_.substr(i_, n));
        i_ += n;
      }
    }
    CHECK_FILE(i_ < in_.size(), "{}: the regular expression has an open character class", where_);
    out_ += in_[i_++];
  }

  std::string_view in_, where_;
  size_t i_ = 0, atom_ = 0;
  std::string out_;
  std::vector<size_t> groups_;
};

}  // namespace

std::string to_pcre2(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

struct Regex::Impl {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  std::string where;
  ~Impl() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::string_view pattern, std::string_view where) : impl_(std::make_unique<Impl>()) {
  CHECK_FILE(pattern.size() <= 65536, "{}: a regular expression of {} bytes is too long", where,
             pattern.size());
  CHECK_FILE(valid_utf8(pattern), "{}: the regular expression is not UTF-8", where);
  impl_->where = where;
  const std::string text = to_pcre2(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &error, &offset, nullptr);
  if (!impl_->code) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorKind::bad_file, "{}: the regular expression is not valid at byte {}: {}", where,
         offset, reinterpret_cast<const char*>(message));
  }
  pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter runs
  impl_->context = pcre2_match_context_create(nullptr);
  if (!impl_->context) throw std::bad_alloc();
  pcre2_set_match_limit(impl_->context, kMatchLimit);
  pcre2_set_depth_limit(impl_->context, kDepthLimit);
  pcre2_set_heap_limit(impl_->context, kHeapLimitKiB);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Match>& out) const {
  std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(impl_->code, nullptr), pcre2_match_data_free);
  if (!data) throw std::bad_alloc();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  bool matched_before = false;
  size_t from = 0, last_end = 0;
  while (from <= text.size()) {
    int rc = pcre2_match(impl_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(),
                         impl_->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its state on the heap
      rc = pcre2_match(impl_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data.get(), impl_->context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    CHECK_FILE(rc >= 0,
               "{}: the regular expression takes too many steps on this text (PCRE2 error {})",
               impl_->where, rc);
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    const size_t begin = span[0], end = span[1];
    CHECK_FILE(begin <= end, "{}: the regular expression moves its start behind its end",
               impl_->where);
    if (begin == end && matched_before && last_end == end) {
      if (from >= text.size()) return;
      from += utf8_length(static_cast<unsigned char>(text[from]));
      continue;
    }
    out.push_back({begin, end});
    matched_before = true;
    from = last_end = end;
  }
}

}  // namespace supersonic::text
