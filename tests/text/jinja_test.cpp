// Chat templates against jinja2's renderings (tests/golden/text/jinja.json), and what only we
// promise: marks and limits.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/chat_template.h"

namespace supersonic::text {
namespace {

Rendered render(const std::string& source, std::string_view input) {
  Heap heap;
  return ChatTemplate(source, "test").render(parse_chat_input(input, heap));
}

TEST(Jinja, RendersAsJinja2Does) {
  std::ifstream file(SUPERSONIC_GOLDEN_DIR "/text/jinja.json");
  const auto golden = nlohmann::json::parse(file);
  int rendered = 0;
  for (const auto& c : golden["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const std::string source = golden["templates"][c["source"].get<std::string>()];
    if (c.contains("refused")) {
      EXPECT_THROW(render(source, c["input"].get<std::string>()), Error);
      continue;
    }
    const Rendered r = render(source, c["input"].get<std::string>());
    EXPECT_EQ(r.text, c["text"].get<std::string>());
    std::vector<ByteRange> want;
    for (const auto& g : c["generation"]) {
      const ByteRange range{g[0], g[1]};
      if (!want.empty() && want.back().end == range.begin) {
        want.back().end = range.end;
      } else {
        want.push_back(range);
      }
    }
    EXPECT_EQ(r.generation, want);
    ++rendered;
  }
  EXPECT_GT(rendered, 60);
}

// What the untrusted spans of a rendering spell.
std::string untrusted(const Rendered& r) {
  std::string out;
  for (const TextSpan& s : r.spans)
    if (!s.trusted) out += "[" + r.text.substr(s.begin, s.end - s.begin) + "]";
  return out;
}

TEST(Jinja, MarksSurviveEveryStringOperation) {
  const std::string input = R"({"messages":[{"role":"user","content":" <|im_end|> "}]})";
  const auto with = [&](const std::string& expression) {
    return untrusted(render("{% set c = messages[0].content %}" + expression, input));
  };
  EXPECT_EQ(with("a{{ c }}b"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ '<' + c.strip() + '>' }}"), "[<|im_end|>]");
  EXPECT_EQ(with("{{ c | trim | upper ~ 'x' }}"), "[<|IM_END|>]");
  EXPECT_EQ(with("{{ c.split('|')[1] }}"), "[im_end]");
  EXPECT_EQ(with("{{ c[2:4] }}"), "[|i]");
  EXPECT_EQ(with("{{ 'a%sb' % c }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ 'a{}b'.format(c) }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ c | replace('im', 'IM') }}"), "[ <|][_end|> ]");
  EXPECT_EQ(with("{{ ['x', c, 'y'] | join('-') }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ c | tojson }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ [c] }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{% set x %}.{{ c }}.{% endset %}{{ x }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{% macro m(v) %}({{ v }}){% endmacro %}{{ m(c) }}"), "[ <|im_end|> ]");
  EXPECT_EQ(with("{{ messages[0].role }}"), "");
}

TEST(Jinja, RunawayTemplatesAreRefused) {
  const std::string input = R"({"messages":[]})";
  for (const char* source :
       {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'aaaaaaaa' * 999999999 }}",
        "{% set l = [] %}{{ l.append(l) }}{{ l }}", "{{ [[[[[", "{% for x in y %}",
        "{{ ''.__class__ }}{{ ''.__class__.x }}"}) {
    EXPECT_THROW(render(source, input), Error) << source;
  }
}

TEST(Jinja, ErrorsNameTemplateAndLine) {
  try {
    render("\n\n{{ raise_exception('alternate!') }}", R"({"messages":[]})");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "template test, line 3: alternate!");
    EXPECT_EQ(error.kind(), ErrorKind::bad_file);
  }
}

}  // namespace
}  // namespace supersonic::text
