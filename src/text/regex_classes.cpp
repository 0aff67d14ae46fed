// PCRE2's view of each category is asked of itself, once, by running \p{..}+ over all code points.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex_classes.h"

#include <fmt/core.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "core/error.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

struct Named {
  std::string_view name;
  uint32_t mask;
};
// Wide classes first: they are taken where a mask holds all of one. Cn, Cs, Co and C are left to
// PCRE2.
constexpr Named kNamed[] = {{"L", kLetter},
                            {"M", kMark},
                            {"N", kNumber},
                            {"P", kPunctuation},
                            {"S", kSymbol},
                            {"Z", category_mask(Zs, Zl, Zp)},
                            {"Cc", category_mask(Cc, Cw)},
                            {"Lu", category_mask(Lu)},
                            {"Ll", category_mask(Ll)},
                            {"Lt", category_mask(Lt)},
                            {"Lm", category_mask(Lm)},
                            {"Lo", category_mask(Lo)},
                            {"Mn", category_mask(Mn)},
                            {"Mc", category_mask(Mc)},
                            {"Me", category_mask(Me)},
                            {"Nd", category_mask(Nd)},
                            {"Nl", category_mask(Nl)},
                            {"No", category_mask(No)},
                            {"Pc", category_mask(Pc)},
                            {"Pd", category_mask(Pd)},
                            {"Ps", category_mask(Ps)},
                            {"Pe", category_mask(Pe)},
                            {"Pi", category_mask(Pi)},
                            {"Pf", category_mask(Pf)},
                            {"Po", category_mask(Po)},
                            {"Sm", category_mask(Sm)},
                            {"Sc", category_mask(Sc)},
                            {"Sk", category_mask(Sk)},
                            {"So", category_mask(So)},
                            {"Zs", category_mask(Zs)},
                            {"Zl", category_mask(Zl)},
                            {"Zp", category_mask(Zp)},
                            {"Cf", category_mask(Cf)}};
constexpr uint32_t kCodes = 0x110000;

struct Range {
  uint32_t first, last;
};
using Ranges = std::vector<Range>;

// The runs of code points (without surrogates, which no text holds) for which `test` is true.
template <class Test>
Ranges ranges_where(Test test) {
  Ranges out;
  for (uint32_t c = 0; c < kCodes; ++c) {
    if (c == 0xD800) c = 0xE000;
    if (!test(c)) continue;
    if (!out.empty() && out.back().last + 1 == c)
      out.back().last = c;
    else
      out.push_back({c, c});
  }
  return out;
}

std::string written(const Ranges& ranges) {
  std::string out;
  for (const Range& r : ranges) {
    out += fmt::format("\\x{{{:x}}}", r.first);
    if (r.last > r.first) out += fmt::format("-\\x{{{:x}}}", r.last);
  }
  return out;
}

// Which code points PCRE2 takes for \p{name}.
std::vector<bool> ask_pcre2(std::string_view name) {
  std::vector<bool> out(kCodes);
  const std::string pattern = fmt::format("\\p{{{}}}+", name);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error,
                    &offset, nullptr),
      pcre2_code_free);
  if (!code) return out;  // no such property: all comes from our table
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  if (!match) throw std::bad_alloc();
  std::string text;
  constexpr uint32_t kStep = 0x800;  // 0xD800 … 0xDFFF is a step of its own
  for (uint32_t first = 0; first < kCodes; first += kStep) {
    if (first == 0xD800) continue;
    text.clear();
    for (uint32_t c = first; c < first + kStep; ++c) append_utf8(text, c);
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    for (size_t from = 0; pcre2_match(code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                      match.get(), nullptr) >= 0;) {
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
      for (const char *p = text.data() + span[0], *end = text.data() + span[1]; p < end;)
        out[next_code(p)] = true;
      from = span[1];
    }
  }
  return out;
}

std::string make_items(const Named& named) {
  const uint8_t* table = category_table();
  const std::vector<bool> theirs = ask_pcre2(named.name);
  const auto ours = [&](uint32_t c) { return in_mask(table[c], named.mask); };
  if (!ranges_where([&](uint32_t c) { return theirs[c] && !ours(c); }).empty())
    return written(ranges_where(ours));
  return fmt::format("\\p{{{}}}", named.name) +
         written(ranges_where([&](uint32_t c) { return ours(c) && !theirs[c]; }));
}

const std::string& items_of(size_t index) {
  static std::array<std::string, std::size(kNamed)> known;
  static std::array<std::once_flag, std::size(kNamed)> once;
  std::call_once(once[index], [&] { known[index] = make_items(kNamed[index]); });
  return known[index];
}

}  // namespace

uint32_t category_by_name(std::string_view name) {
  for (const Named& named : kNamed)
    if (name == named.name) return named.mask;
  return 0;
}

std::string category_items(uint32_t mask, bool negate) {
  const uint8_t* table = category_table();
  if (negate) return written(ranges_where([&](uint32_t c) { return !in_mask(table[c], mask); }));
  std::string out;
  for (size_t i = 0; i < std::size(kNamed); ++i) {
    if ((mask & kNamed[i].mask) != kNamed[i].mask) continue;
    out += items_of(i);
    mask &= ~kNamed[i].mask;
  }
  if (in_mask(Cw, mask)) out += "\\x{9}-\\x{d}\\x{85}";
  return out;
}

namespace {

constexpr uint32_t kWord = kLetter | kMark | category_mask(Nd, Nl, Pc);
constexpr Range kMore[] = {{0xB2, 0xB3},      {0xB9, 0xB9},       {0xBC, 0xBE},
                           {0x24B6, 0x24E9},  {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
                           {0x1F170, 0x1F189}};

bool is_more(uint32_t c) {
  return std::any_of(std::begin(kMore), std::end(kMore),
                     [c](const Range& r) { return c >= r.first && c <= r.last; });
}

}  // namespace

bool is_regex_word(uint32_t c) { return is_in(c, kWord) || is_more(c); }

std::string word_items(bool negate) {
  if (!negate)
    return category_items(kWord, false) + written(Ranges(std::begin(kMore), std::end(kMore)));
  const uint8_t* table = category_table();
  return written(
      ranges_where([&](uint32_t c) { return !in_mask(table[c], kWord) && !is_more(c); }));
}

}  // namespace supersonic::text
