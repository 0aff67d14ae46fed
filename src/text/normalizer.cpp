// The steps. Unicode forms work on whole texts; where origins are followed they work on stretches
// (a run of non-ASCII characters with the character before it, since ASCII before ASCII never
// changes), and inside a stretch that does change on the smallest segments that no composition or
// reordering crosses.
#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "text/normalizer_steps.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

std::string utf8proc_form(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  CHECK(size >= 0, "normalizer: {}", utf8proc_errmsg(size));
  std::string out(reinterpret_cast<char*>(mapped), static_cast<size_t>(size));
  std::free(mapped);
  return out;
}

// Characters that the reference's tables do not know stay as they are, and nothing composes or
// moves across them: what lies between them is normalized by itself.
std::string unicode_form(std::string_view text, int options) {
  std::string out;
  const char *begin = text.data(), *end = begin + text.size(), *known = begin;
  for (const char* p = begin; p < end;) {
    const char* here = p;
    if (!in_ranges(next_code(p), kUnknownForms)) continue;
    out += utf8proc_form({known, here}, options);
    out.append(here, p);
    known = p;
  }
  return known == begin ? utf8proc_form(text, options) : out + utf8proc_form({known, end}, options);
}

bool plain(char c) { return static_cast<signed char>(c) >= 0; }

// Whether normalization never joins this character to the one before it: a starter that composes
// with nothing to its left. (What does is a mark, or a vowel or final consonant of Hangul.)
bool starts_segment(uint32_t code) {
  if (in_ranges(code, kUnknownForms)) return true;
  constexpr auto kForms = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  utf8proc_int32_t first[32];
  int unused = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), first,
                                             std::size(first), kForms, &unused);
  if (count <= 0 || static_cast<size_t>(count) > std::size(first)) return false;
  const auto head = static_cast<uint32_t>(first[0]);
  const bool jamo = (head >= 0x1160 && head <= 0x11FF) || (head >= 0xD7B0 && head <= 0xD7FF);
  return !jamo && utf8proc_get_property(first[0])->combining_class == 0 && !is_in(head, kMark);
}

// Where the segment that starts at `begin` ends.
size_t segment_end(std::string_view text, size_t begin) {
  const char *p = text.data() + begin, *end = text.data() + text.size();
  next_code(p);
  while (p < end && !starts_segment(code_at(p))) next_code(p);
  return static_cast<size_t>(p - text.data());
}

// Where [begin, end) can be cut so that its parts' forms make up the whole's form; `end` where no
// cut was found.
size_t find_cut(std::string_view text, size_t begin, size_t end, std::string_view form,
                int options) {
  constexpr size_t kLongest =
      64;  // bytes; a longer run of marks is left whole, since each cut is tried
  if (end - begin > kLongest) return end;
  for (size_t cut = begin;;) {
    cut += utf8_length(static_cast<unsigned char>(text[cut]));
    if (cut >= end) return end;
    const std::string left = unicode_form(text.substr(begin, cut - begin), options);
    if (!form.starts_with(left)) continue;
    if (form.substr(left.size()) == unicode_form(text.substr(cut, end - cut), options)) return cut;
  }
}

// [begin, end) becomes `form`, in parts as small as can be.
void rewrite_segment(std::string_view text, size_t begin, size_t end, std::string form, int options,
                     Rewriter& out) {
  while (begin < end) {
    const size_t cut = find_cut(text, begin, end, form, options);
    const std::string_view part = text.substr(begin, cut - begin);
    const std::string rest = cut < end ? unicode_form(text.substr(cut, end - cut), options) : "";
    form.resize(form.size() - rest.size());
    if (form == part)
      out.copy(begin, cut);
    else
      out.replace(begin, cut, form);
    form = rest;
    begin = cut;
  }
}

void rewrite_stretch(std::string_view text, size_t begin, size_t end, int options, Rewriter& out) {
  const std::string_view part = text.substr(begin, end - begin);
  const std::string form = unicode_form(part, options);
  if (form == part) return out.copy(begin, end);
  std::vector<std::pair<size_t, std::string>> segments;  // end, form
  size_t joined = 0;
  bool same = true;
  for (size_t at = 0; at < part.size() && same;) {
    const size_t stop = segment_end(part, at);
    std::string piece = unicode_form(part.substr(at, stop - at), options);
    same = form.compare(joined, piece.size(), piece) == 0;
    joined += piece.size();
    segments.emplace_back(begin + stop, std::move(piece));
    at = stop;
  }
  if (!same || joined != form.size()) return out.replace(begin, end, form);
  for (size_t at = begin; const auto& [stop, piece] : segments) {
    rewrite_segment(text, at, stop, piece, options, out);
    at = stop;
  }
}

}  // namespace

void unicode_step(std::string& text, Origins* origins, int options) {
  if (std::all_of(text.begin(), text.end(), plain)) return;
  if (!origins) {
    text = unicode_form(text, options);
    return;
  }
  Rewriter out(whole(text, origins));
  for (size_t i = 0; i < text.size();) {
    size_t j = i;
    while (j < text.size() && plain(text[j]) && (j + 1 == text.size() || plain(text[j + 1]))) ++j;
    out.copy(i, j);
    i = j;
    if (j < text.size() && plain(text[j])) ++j;
    while (j < text.size() && !plain(text[j])) ++j;
    if (j > i) rewrite_stretch(text, i, j, options, out);
    i = j;
  }
  finish(out, text, origins);
}

void lower_step(std::string& text, Origins* origins) {
  each_character(text, origins, [](uint32_t code, std::string& out) {
    if (code < 128)
      return out.push_back(static_cast<char>(code >= 'A' && code <= 'Z' ? code + 32 : code));
    if (code == 0x130)
      return void(out += "i\xCC\x87");  // the only character whose lower case is two
    const auto other = std::ranges::lower_bound(kOtherLower, code, {}, &CodePair::from);
    if (other != kOtherLower.end() && other->from == code)
      append_utf8(out, other->to);
    else
      append_utf8(out,
                  static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  });
}

namespace {

void strip(std::string& text, Origins* origins, bool left, bool right) {
  const char *begin = text.data(), *end = begin + text.size();
  const char *first = begin, *last = end;
  while (right && last > first && is_in(code_at(previous_char(last)), kSpace))
    last = previous_char(last);
  while (left && first < last && is_in(code_at(first), kSpace)) next_code(first);
  Rewriter out(whole(text, origins));
  out.copy(first - begin, last - begin);
  finish(out, text, origins);
}

void prepend(std::string& text, Origins* origins, const std::string& content) {
  if (text.empty()) return;
  Rewriter out(whole(text, origins));
  out.reserve(text.size() + content.size());
  out.insert(0, content, true);
  out.copy(0, text.size());
  finish(out, text, origins);
}

void replace(std::string& text, Origins* origins, const NormalizerStep& spec,
             const std::optional<Regex>& regex) {
  std::vector<Match> matches;
  if (regex) {
    regex->find_all(text, matches);
  } else if (!spec.pattern.text.empty()) {
    const std::string& what = spec.pattern.text;
    for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size())
      matches.push_back({at, at + what.size()});
  }
  if (matches.empty()) return;
  Rewriter out(whole(text, origins));
  out.reserve(text.size() + matches.size() * spec.content.size());
  size_t at = 0;
  for (const Match& m : matches) {
    out.copy(at, m.begin);
    out.replace(m.begin, m.end, spec.content);
    at = m.end;
  }
  out.copy(at, text.size());
  finish(out, text, origins);
}

void map_bytes(std::string& text, Origins* origins) {
  Rewriter out(whole(text, origins));
  out.reserve(text.size() * 2);
  std::string mapped;
  for (size_t i = 0; i < text.size(); ++i) {
    mapped.clear();
    append_byte_mapped(mapped, std::string_view(text).substr(i, 1));
    out.replace(i, i + 1, mapped);
  }
  finish(out, text, origins);
}

}  // namespace

Normalizer::Normalizer(const std::vector<NormalizerStep>& steps) {
  for (const NormalizerStep& spec : steps) {
    Step step{.spec = spec, .regex = std::nullopt, .charsmap = std::nullopt, .ascii = {}};
    if (spec.kind == NormalizerStep::replace && spec.pattern.regex)
      step.regex.emplace(spec.pattern.text, "normalizer.pattern");
    if (spec.kind == NormalizerStep::bert) step.ascii = bert_table(spec);
    if (spec.kind == NormalizerStep::charsmap) step.charsmap.emplace(spec.content, spec.clusters);
    steps_.push_back(std::move(step));
  }
}

void Normalizer::apply(std::string& text, Origins* origins) const {
  for (const Step& step : steps_) {
    const NormalizerStep& s = step.spec;
    switch (s.kind) {
      case NormalizerStep::nfc:
        unicode_step(text, origins, UTF8PROC_COMPOSE);
        break;
      case NormalizerStep::nfd:
        unicode_step(text, origins, UTF8PROC_DECOMPOSE);
        break;
      case NormalizerStep::nfkc:
        unicode_step(text, origins, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
        break;
      case NormalizerStep::nfkd:
        unicode_step(text, origins, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
        break;
      case NormalizerStep::lowercase:
        lower_step(text, origins);
        break;
      case NormalizerStep::strip:
        strip(text, origins, s.left, s.right);
        break;
      case NormalizerStep::strip_accents:
        each_character(text, origins, [](uint32_t c, std::string& out) {
          if (is_in(c, kMark) == in_ranges(c, kOtherAccents)) append_utf8(out, c);
        });
        break;
      case NormalizerStep::prepend:
        prepend(text, origins, s.content);
        break;
      case NormalizerStep::replace:
        replace(text, origins, s, step.regex);
        break;
      case NormalizerStep::byte_level:
        map_bytes(text, origins);
        break;
      case NormalizerStep::bert:
        bert_step(text, origins, s, step.ascii);
        break;
      case NormalizerStep::nmt:
        nmt_step(text, origins);
        break;
      case NormalizerStep::charsmap:
        step.charsmap->apply(text, origins);
        break;
    }
  }
}

}  // namespace supersonic::text
