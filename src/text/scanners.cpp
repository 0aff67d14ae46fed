// Scanners for GPT-2, the cl100k family (Llama 3, Qwen) and the o200k family (GPT-4o, tekken). Each
// follows its pattern's alternatives in order; comments quote the alternative.
#include "text/scanners.h"

#include "text/regex_classes.h"
#include "text/unicode.h"

namespace supersonic::text {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::string_view kDigitGroupsPattern = R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))";
const std::string_view kWordDigitGroupsPattern = R"(\d{1,3}(?=(?:\d{3})*\b))";
const std::string_view kDigitCutsPattern = R"((?=(\d{3})+(?!\d)))";

namespace {

struct Text {  // the text behind the scan position, with its categories
  const char* end;
  const uint8_t* categories;

  bool is(const char* p, uint32_t mask) const {
    return p < end && in_mask(categories[code_at(p)], mask);
  }
  const char* run(const char* p, uint32_t mask, uint32_t most = UINT32_MAX) const {
    for (; p < end && most; --most) {
      const char* q = p;
      if (!in_mask(categories[next_code(q)], mask)) break;
      p = q;
    }
    return p;
  }
  static const char* step(const char* p) { return next_code(p), p; }
};

bool is_newline(char c) { return c == '\r' || c == '\n'; }

// 's|'t|'re|'ve|'m|'ll|'d at p; with `fold` in either case (U+017F folds to s). Returns p when
// there is none.
const char* contraction(const char* p, const char* end, bool fold) {
  if (end - p < 2 || *p != '\'') return p;
  const auto lower = [&](const char* q) {
    return q >= end ? 0 : fold && *q >= 'A' && *q <= 'Z' ? *q + 32 : static_cast<int>(*q);
  };
  const int a = lower(p + 1), b = lower(p + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
  if (fold && end - p >= 3 && p[1] == '\xC5' && p[2] == '\xBF') return p + 3;
  return p;
}

//  \s+(?!\S)|\s+ : a run of white space leaves its last character to the word behind it.
const char* spaces(const char* p, const Text& t) {
  const char* stop = t.run(p, kSpace);
  if (stop == t.end) return stop;
  const char* last = previous_char(stop);
  return last > p ? last : stop;
}

//  \s*[\r\n]+|\s+(?!\S)|\s+ : the run up to its last line end, if it has one.
const char* spaces_or_lines(const char* p, const Text& t) {
  const char* stop = t.run(p, kSpace);
  for (const char* q = stop; q > p; --q)
    if (is_newline(q[-1])) return q;
  if (stop == t.end) return stop;
  const char* last = previous_char(stop);
  return last > p ? last : stop;
}

const char* gpt2(const char* p, const char* end, const uint8_t* categories) {
  const Text t{end, categories};
  if (const char* q = contraction(p, end, false); q != p) return q;
  const char* word = *p == ' ' ? p + 1 : p;
  for (const uint32_t mask : {kLetter, kNumber})
    if (const char* q = t.run(word, mask); q != word) return q;  //  ?\p{L}+| ?\p{N}+
  if (const char* q = t.run(word, ~(kSpace | kLetter | kNumber)); q != word) return q;
  return spaces(p, t);
}

// Words: the letters of a word (and marks for Qwen 3.5); Digits: how many make a piece.
template <uint32_t Words, uint32_t Digits>
const char* cl100k(const char* p, const char* end, const uint8_t* categories) {
  const Text t{end, categories};
  if (const char* q = contraction(p, end, true); q != p) return q;
  const uint8_t category = categories[code_at(p)];
  if (in_mask(category, Words)) return t.run(Text::step(p), Words);  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (!in_mask(category, kNumber) && !is_newline(*p)) {
    const char* word = Text::step(p);
    if (t.is(word, Words)) return t.run(word, Words);
  }
  if (in_mask(category, kNumber)) return t.run(p, kNumber, Digits);
  constexpr uint32_t kOther = ~(kSpace | Words | kNumber);
  const char* symbols = *p == ' ' ? p + 1 : p;
  if (const char* q = t.run(symbols, kOther); q != symbols) {  //  ?[^\s\p{L}\p{N}]+[\r\n]*
    while (q < end && is_newline(*q)) ++q;
    return q;
  }
  return spaces_or_lines(p, t);
}

constexpr uint32_t kUpper = category_mask(Lu, Lt, Lm, Lo) | kMark,
                   kLower = category_mask(Ll, Lm, Lo) | kMark;

// [Upper]*[Lower]+ at p: where it ends, or null. Both classes share Lm, Lo and M, so the first run
// gives back to the last of those.
const char* upper_lower(const char* p, const Text& t) {
  const char* upper = t.run(p, kUpper);
  if (const char* q = t.run(upper, kLower); q != upper) return q;
  while (upper > p) {
    const char* last = previous_char(upper);
    if (t.is(last, kLower)) return upper;
    upper = last;
  }
  return nullptr;
}

const char* cased_word(const char* p, const Text& t) {
  const bool prefix = !is_newline(*p) && !t.is(p, kLetter | kNumber);
  if (prefix)
    if (const char* q = upper_lower(Text::step(p), t)) return q;
  if (const char* q = upper_lower(p, t)) return q;
  if (prefix) {  // [Upper]+[Lower]*: the lower part would have matched above
    const char* word = Text::step(p);
    if (const char* q = t.run(word, kUpper); q != word) return q;
  }
  const char* q = t.run(p, kUpper);
  return q != p ? q : nullptr;
}

template <uint32_t Digits, bool Contractions>
const char* o200k(const char* p, const char* end, const uint8_t* categories) {
  const Text t{end, categories};
  if (const char* q = cased_word(p, t)) return Contractions ? contraction(q, end, true) : q;
  if (const char* q = t.run(p, kNumber, Digits); q != p) return q;
  const char* symbols = *p == ' ' ? p + 1 : p;
  if (const char* q = t.run(symbols, ~(kSpace | kLetter | kNumber)); q != symbols) {
    while (q < end && (is_newline(*q) || *q == '/')) ++q;
    return q;
  }
  return spaces_or_lines(p, t);
}

// Calls use(where each character of a run begins, with its end last; the text behind it) for every
// run of characters in `mask`.
template <class Use>
void each_run(std::string_view text, uint32_t mask, Use use) {
  const char *begin = text.data(), *end = begin + text.size();
  std::vector<size_t> starts;
  for (const char* p = begin; p < end;) {
    const char* q = p;
    starts.clear();
    while (p < end && is_in(code_at(p), mask)) {
      starts.push_back(static_cast<size_t>(p - begin));
      next_code(p);
    }
    starts.push_back(static_cast<size_t>(p - begin));
    if (starts.size() > 1) use(starts, text.substr(starts.back()));
    if (p == q) next_code(p);
  }
}

void add_groups(const std::vector<size_t>& starts, std::vector<Match>& out) {
  const size_t count = starts.size() - 1;
  for (size_t at = 0; at < count;) {
    const size_t next = at + ((count - at) % 3 ? (count - at) % 3 : 3);
    out.push_back({starts[at], starts[next]});
    at = next;
  }
}

void digit_groups(std::string_view text, std::vector<Match>& out) {
  each_run(text, kNumber, [&](const auto& starts, std::string_view) { add_groups(starts, out); });
}

// \b behind a digit: what follows is no word character. No other place in a run has one.
void word_digit_groups(std::string_view text, std::vector<Match>& out) {
  each_run(text, category_mask(Nd), [&](const auto& starts, std::string_view rest) {
    if (rest.empty() || !is_regex_word(code_at(rest.data()))) add_groups(starts, out);
  });
}

// Empty matches in front of every group of three.
void digit_cuts(std::string_view text, std::vector<Match>& out) {
  each_run(text, category_mask(Nd), [&](const auto& starts, std::string_view) {
    const size_t count = starts.size() - 1;
    for (size_t at = count % 3; at < count; at += 3) out.push_back({starts[at], starts[at]});
  });
}

}  // namespace

Matcher find_matcher(std::string_view pattern) {
  if (pattern == kDigitGroupsPattern) return digit_groups;
  if (pattern == kWordDigitGroupsPattern) return word_digit_groups;
  if (pattern == kDigitCutsPattern) return digit_cuts;
  return nullptr;
}

Scanner find_scanner(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return gpt2;
  if (pattern == kLlama3Pattern) return cl100k<kLetter, 3>;
  if (pattern == kQwen2Pattern) return cl100k<kLetter, 1>;
  if (pattern == kQwen35Pattern) return cl100k<kLetter | kMark, 1>;
  if (pattern == kO200kPattern) return o200k<3, true>;
  if (pattern == kTekkenPattern) return o200k<1, false>;
  return nullptr;
}

}  // namespace supersonic::text
