// Splitting by delimiters follows the `tokenizers` crate: first the list of matches and gaps, then the behaviour decides which
// neighbours join; empty parts vanish.
#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/unicode.h"

namespace supersonic::text {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

void add_gaps(const std::vector<Match>& matches, size_t size, std::vector<Part>& parts) {
  size_t at = 0;
  for (const Match& m : matches) {
    if (m.begin > at) parts.push_back({at, m.begin, false});
    parts.push_back({m.begin, m.end, true});
    at = m.end;
  }
  if (at < size) parts.push_back({at, size, false});
}

// Every character that `test` accepts is one match.
template <class Test>
void match_characters(std::string_view text, std::vector<Match>& out, Test test) {
  const char* begin = text.data();
  for (const char *p = begin, *end = begin + text.size(); p < end;) {
    const char* q = p;
    if (test(next_code(q))) out.push_back({size_t(p - begin), size_t(q - begin)});
    p = q;
  }
}

void match_literal(std::string_view text, std::string_view what, std::vector<Match>& out) {
  if (what.empty()) return;
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size()) out.push_back({at, at + what.size()});
}

// \w+|[^\w\s]+
void match_words(std::string_view text, std::vector<Match>& out) {
  const char *begin = text.data(), *end = begin + text.size();
  const auto kind = [](uint32_t c) { return is_word(c) ? 1 : is_in(c, kSpace) ? 0 : 2; };
  for (const char* p = begin; p < end;) {
    const char* start = p;
    const int first = kind(next_code(p));
    if (first == 0) continue;
    while (p < end && kind(code_at(p)) == first) next_code(p);
    out.push_back({size_t(start - begin), size_t(p - begin)});
  }
}

bool is_punctuation(uint32_t c) {
  if (c < 128) return (c > 32 && c < 48) || (c > 57 && c < 65) || (c > 90 && c < 97) || (c > 122 && c < 127);
  return is_in(c, kPunctuation);
}

// Joins matches with their neighbours, in place; removed ones are dropped.
void apply(Behavior behavior, std::vector<Part>& parts) {
  std::vector<Part> out;
  bool previous = false;
  if (behavior == Behavior::removed) {
    std::erase_if(parts, [](const Part& p) { return p.match; });
    return;
  }
  if (behavior == Behavior::isolated) return;
  if (behavior == Behavior::merged_with_next) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->match && !previous && !out.empty())
        out.back().begin = part->begin;
      else
        out.push_back(*part);
      previous = part->match;
    }
    std::reverse(out.begin(), out.end());
  } else {
    for (const Part& part : parts) {
      const bool join = behavior == Behavior::contiguous ? part.match == previous : part.match && !previous;
      if (join && !out.empty())
        out.back().end = part.end;
      else
        out.push_back(part);
      previous = part.match;
    }
  }
  parts = std::move(out);
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreStep> steps, bool raw_bytes) : raw_bytes_(raw_bytes) {
  for (PreStep& spec : steps) {
    Step step{.spec = std::move(spec), .scanner = nullptr, .regex = std::nullopt};
    const PreStep& s = step.spec;
    if (s.kind == PreStep::split && s.pattern.regex) {
      const bool covers = s.behavior == Behavior::isolated || (s.behavior == Behavior::removed && s.invert);
      if (covers) step.scanner = find_scanner(s.pattern.text);
      if (!step.scanner) step.regex.emplace(s.pattern.text, "pre_tokenizer.pattern");
    }
    if (s.kind == PreStep::byte_level && s.use_regex) step.scanner = find_scanner(kGpt2Pattern);
    steps_.push_back(std::move(step));
  }
}

bool PreTokenizer::ends_in_byte_level() const {
  return !steps_.empty() && steps_.back().spec.kind == PreStep::byte_level;
}

void PreTokenizer::split(std::string_view text, bool at_start, WordSink& sink) const {
  run(0, text, at_start, sink);
}

void PreTokenizer::run(size_t step, std::string_view text, bool at_start, WordSink& sink) const {
  if (text.empty()) return;
  if (step == steps_.size()) return sink.word(text);
  const Step& s = steps_[step];
  switch (s.spec.kind) {
    case PreStep::split:
      if (s.scanner) return scan(step + 1, text, at_start, sink, s.scanner);
      return cut(step, text, at_start, sink, s.spec.behavior);
    case PreStep::byte_level: return byte_level(step, text, at_start, sink);
    case PreStep::metaspace: return metaspace(step, text, at_start, sink);
    case PreStep::digits:
      return cut(step, text, at_start, sink, s.spec.individual ? Behavior::isolated : Behavior::contiguous);
    case PreStep::punctuation: return cut(step, text, at_start, sink, s.spec.behavior);
    case PreStep::whitespace:
    case PreStep::whitespace_split: return cut(step, text, at_start, sink, Behavior::removed);
  }
}

void PreTokenizer::scan(size_t next, std::string_view text, bool at_start, WordSink& sink, Scanner scanner) const {
  const uint8_t* categories = category_table();
  const char *p = text.data(), *end = p + text.size();
  while (p < end) {
    const char* q = scanner(p, end, categories);
    run(next, {p, q}, at_start, sink);
    at_start = false;
    p = q;
  }
}

void PreTokenizer::cut(size_t step, std::string_view text, bool at_start, WordSink& sink, Behavior behavior) const {
  const Step& s = steps_[step];
  std::vector<Match> matches;
  switch (s.spec.kind) {
    case PreStep::split:
      if (s.regex)
        s.regex->find_all(text, matches);
      else
        match_literal(text, s.spec.pattern.text, matches);
      break;
    case PreStep::digits: match_characters(text, matches, [](uint32_t c) { return is_in(c, kNumber); }); break;
    case PreStep::punctuation: match_characters(text, matches, is_punctuation); break;
    case PreStep::whitespace: match_words(text, matches); break;
    default: match_characters(text, matches, [](uint32_t c) { return is_in(c, kSpace); });
  }
  const bool invert = s.spec.kind == PreStep::whitespace || (s.spec.kind == PreStep::split && s.spec.invert);
  if (matches.empty() && !invert) return run(step + 1, text, at_start, sink);
  std::vector<Part> parts;
  add_gaps(matches, text.size(), parts);
  if (invert)
    for (Part& part : parts) part.match = !part.match;
  apply(behavior, parts);
  for (const Part& part : parts)
    run(step + 1, text.substr(part.begin, part.end - part.begin), at_start && part.begin == 0, sink);
}

void PreTokenizer::metaspace(size_t step, std::string_view text, bool at_start, WordSink& sink) const {
  const PreStep& spec = steps_[step].spec;
  std::string changed;
  changed.reserve(text.size() + text.size() / 4);
  for (const char c : text) {
    if (c == ' ')
      changed += spec.replacement;
    else
      changed += c;
  }
  const bool prepend =
      spec.prepend == PrependScheme::always || (spec.prepend == PrependScheme::first && at_start);
  if (prepend && !changed.starts_with(spec.replacement)) changed.insert(0, spec.replacement);
  if (!spec.split_words) return run(step + 1, changed, at_start, sink);
  std::vector<Match> matches;
  match_literal(changed, spec.replacement, matches);
  std::vector<Part> parts;
  add_gaps(matches, changed.size(), parts);
  apply(Behavior::merged_with_next, parts);
  const std::string_view view = changed;
  for (const Part& part : parts)
    run(step + 1, view.substr(part.begin, part.end - part.begin), at_start && part.begin == 0, sink);
}

void PreTokenizer::byte_level(size_t step, std::string_view text, bool at_start, WordSink& sink) const {
  const Step& s = steps_[step];
  std::string prefixed;
  if (s.spec.add_prefix_space && text[0] != ' ') {
    prefixed.reserve(text.size() + 1);
    prefixed += ' ';
    prefixed += text;
    text = prefixed;
  }
  const auto hand_on = [&](std::string_view word) {
    if (raw_bytes_ && step + 1 == steps_.size()) return sink.word(word);
    std::string mapped;
    append_byte_mapped(mapped, word);
    run(step + 1, mapped, at_start, sink);
    at_start = false;
  };
  if (!s.scanner) return hand_on(text);
  const uint8_t* categories = category_table();
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const char* q = s.scanner(p, end, categories);
    hand_on({p, q});
    p = q;
  }
}

}  // namespace supersonic::text
