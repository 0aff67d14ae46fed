// PCRE2 with a match limit: the patterns come from files.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/module_pattern.h"

#include <pcre2.h>

#include <memory>
#include <string>

#include "core/error.h"

namespace supersonic::io {

namespace {

constexpr std::uint32_t kMatchLimit = 100'000, kDepthLimit = 1'000, kMaxNesting = 50;
constexpr std::size_t kMaxPattern = 1000;

template <auto Free>
struct Freeing {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freeing<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freeing<pcre2_match_context_free>>;
using Code = std::unique_ptr<pcre2_code, Freeing<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freeing<pcre2_match_data_free>>;

}  // namespace

bool matches_module(std::string_view pattern, std::string_view module) {
  CHECK_FILE(pattern.size() <= kMaxPattern, "a module pattern of {} bytes, at most {} are allowed",
             pattern.size(), kMaxPattern);
  const std::string whole = "(?:.*\\.)?(?:" + std::string(pattern) + ")";
  const CompileContext limits(pcre2_compile_context_create(nullptr));
  pcre2_set_parens_nest_limit(limits.get(), kMaxNesting);
  int error = 0;
  std::size_t where = 0;
  const Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(),
                                PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C,
                                &error, &where, limits.get()));
  CHECK_FILE(code, "the module pattern \"{}\" is not a regular expression", pattern);
  const MatchData data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  return pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0,
                     data.get(), context.get()) >= 0;
}

}  // namespace supersonic::io
