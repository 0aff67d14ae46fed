// Regular expressions of tokenizer.json: Oniguruma's Ruby syntax, run by PCRE2's JIT. The pattern
// is translated where the two differ
// (\s, \d, \w, \h, interval followed by +); matching has step, depth and memory limits, so a
// hostile pattern ends in an Error.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text {

struct Match {
  size_t begin, end;
};

class Regex {
 public:
  // `where` names the field in errors. Throws Error(bad_file) when the pattern does not compile.
  Regex(std::string_view pattern, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  // Appends all matches in `text` (valid UTF-8), left to right; empty ones too, except right behind
  // another match.
  void find_all(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The pattern in PCRE2's syntax (exposed for tests).
std::string to_pcre2(std::string_view pattern, std::string_view where);

}  // namespace supersonic::text
