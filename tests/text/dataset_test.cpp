// Training data: bad lines are named, answers are masked exactly, packing loses and mixes nothing,
// resume is exact.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

#include "core/error.h"
#include "text/dataset_pack.h"
#include "text/jinja_json.h"

namespace supersonic::text {
namespace {

// One token a byte, but "<…>" in trusted text is one token: enough of a tokenizer for masks.
TokenizerView byte_tokenizer() {
  TokenizerView t;
  t.encode = [](std::string_view text, const std::vector<TextSpan>& spans, Encoded& out) {
    for (const TextSpan& s : spans) {
      for (std::size_t i = s.begin; i < s.end;) {
        std::size_t next = i + 1;
        std::int32_t id = static_cast<unsigned char>(text[i]);
        const std::size_t close = text.find('>', i);
        if (s.trusted && text[i] == '<' && close < s.end) {
          next = close + 1;
          id = text.substr(i, next - i) == "</s>" ? 2 : 1000;
        }
        out.ids.push_back(id);
        out.ends.push_back(static_cast<std::uint32_t>(next));
        i = next;
      }
    }
  };
  t.eos = 2;
  t.eos_text = "</s>";
  t.bos = 1;
  t.bos_text = "<s>";
  return t;
}

constexpr std::string_view kChat =
    "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{% if m.tool_calls %}<tool>{{ "
    "m.tool_calls[0].name }}</tool>{% endif %}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}";

std::vector<std::string> trained_parts(std::string_view source, std::string_view row,
                                       bool all = false) {
  const ChatTemplate chat(source, "test");
  Heap heap;
  const Value v = parse_json(row, heap);
  const Sample sample = normalize_row(v, detect_layout(v), heap);
  RenderOptions options;
  options.chat_template = &chat;
  options.train_on_all = all;
  const Marked m = mark_sample(sample, byte_tokenizer(), options);
  std::vector<std::string> parts;
  for (const ByteRange& r : m.trained) parts.push_back(m.text.substr(r.begin, r.end - r.begin));
  return parts;
}

using Parts = std::vector<std::string>;

TEST(Dataset, TrainsAnswersWithTheirEndOfTurnInEveryLayout) {
  EXPECT_EQ(
      trained_parts(
          kChat,
          R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]})"),
      (Parts{"a</s>", "b</s>"}));
  EXPECT_EQ(
      trained_parts(
          kChat,
          R"({"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}],"system":"s"})"),
      (Parts{"a</s>"}));
  EXPECT_EQ(
      trained_parts(kChat, R"({"instruction":"q","input":"i","output":"a","history":[["x","y"]]})"),
      (Parts{"y</s>", "a</s>"}));
  EXPECT_EQ(trained_parts(kChat, R"({"prompt":"q","completion":"a"})"), (Parts{"a</s>"}));
  EXPECT_EQ(
      trained_parts(
          kChat,
          R"({"prompt":[{"role":"user","content":"q"},{"role":"assistant","content":"n"},{"role":"user","content":"r"}],"completion":[{"role":"assistant","content":"a"}]})"),
      (Parts{"a</s>"}));
}

TEST(Dataset, TrainsToolCallsWholeAndEmptyAnswersEndOnly) {
  EXPECT_EQ(
      trained_parts(
          kChat,
          R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"","tool_calls":[{"name":"f"}]},{"role":"tool","content":"t"}]})"),
      (Parts{"<tool>f</tool></s>"}));
  EXPECT_EQ(
      trained_parts(
          kChat,
          R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":""}]})"),
      (Parts{"</s>"}));
}

TEST(Dataset, GenerationBlocksDecideWhereTheTemplateHasThem) {
  EXPECT_EQ(
      trained_parts(
          "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content "
          "}}!{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
          R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]})"),
      (Parts{"a!", "b!"}));
}

TEST(Dataset, AnswersAreFoundWhenTheTemplateRewritesEarlierTurns) {
  // The template drops everything before </think> in all answers but the last.
  constexpr std::string_view source =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}{{ "
      "m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}</s>"
      "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  EXPECT_EQ(
      trained_parts(
          source,
          R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>t</think>a"},{"role":"user","content":"r"},{"role":"assistant","content":"<think>u</think>b"}]})"),
      (Parts{"a</s>", "<think>u</think>b</s>"}));
}

TEST(Dataset, SpecialTokensInUserTextStayText) {
  const ChatTemplate chat(kChat, "test");
  Heap heap;
  const Value row = parse_json(
      R"({"messages":[{"role":"user","content":"</s>"},{"role":"assistant","content":"a"}]})",
      heap);
  RenderOptions options;
  options.chat_template = &chat;
  std::vector<Tokens> out;
  tokenize_sample(normalize_row(row, Layout::messages, heap), byte_tokenizer(), options, out);
  EXPECT_EQ(std::count(out[0].ids.begin(), out[0].ids.end(), 2),
            2);  // one for each turn, none from the user
  EXPECT_FALSE(out[0].open_turn);
  EXPECT_EQ(std::accumulate(out[0].trained.begin(), out[0].trained.end(), 0), 2);
}

TEST(Dataset, ReportsEveryBadLineWithFileLineFieldAndRemedy) {
  const auto path = std::filesystem::temp_directory_path() / "supersonic_dataset_test.jsonl";
  std::ofstream(path) << R"({"messages":[{"role":"user","content":"q"}]})"
                      << "\n{\"messages\": [\n\n"
                      << R"({"messages":[{"role":"user"}]})"
                      << "\n"
                      << R"({"text":"x"})"
                      << "\n";
  try {
    read_rows(path.string(), [](const Sample&) {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::bad_file);
    EXPECT_NE(what.find(".jsonl:2: not valid JSON at byte"), what.npos) << what;
    EXPECT_NE(what.find(".jsonl:4: messages[0].content is missing"), what.npos) << what;
    EXPECT_NE(what.find(".jsonl:5: the field 'messages' is missing"), what.npos) << what;
  }
  std::filesystem::remove(path);
}

std::vector<Tokens> random_samples(std::size_t n) {
  std::vector<Tokens> out(n);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    const std::size_t size = 2 + (state >> 8) % 60;
    for (std::size_t k = 0; k < size; ++k) {
      out[i].ids.push_back(static_cast<std::int32_t>(i * 100 + k));
      out[i].trained.push_back(k > size / 2);
    }
    out[i].trained.back() = 1;
  }
  return out;
}

TEST(Dataset, PackingKeepsEverySampleWholeAndApart) {
  const auto samples = random_samples(300);
  std::vector<std::uint32_t> all(samples.size());
  std::iota(all.begin(), all.end(), 0u);
  Packed packed(samples, all, {.seq_len = 64, .rows = 3, .seed = 5, .pad = -7});
  EXPECT_LT(packed.padding(), 0.05);  // 300 samples of 31 tokens on average in rows of 64
  Batch b = packed.make_batch();
  std::map<std::int32_t, int> seen;
  std::int64_t trained = 0, tokens = 0;
  for (std::int64_t step = 0; step < packed.batches_per_epoch(); ++step) {
    packed.fill(step, b);
    trained += b.trained;
    tokens += b.tokens;
    for (std::size_t i = 0; i < b.ids.size(); ++i) {
      if (b.ids[i] == -7) {
        EXPECT_EQ(b.labels[i], kIgnore);
        EXPECT_EQ(b.lo[i], static_cast<std::int32_t>(i));
        continue;
      }
      ++seen[b.ids[i]];
      const std::int32_t sample = b.ids[i] / 100, k = b.ids[i] % 100;
      EXPECT_EQ(b.positions[i], k);
      EXPECT_EQ(b.lo[i], static_cast<std::int32_t>(i) - k);
      EXPECT_EQ(b.ids[static_cast<std::size_t>(b.lo[i])], sample * 100);
      const auto& t = samples[static_cast<std::size_t>(sample)];
      const auto next = static_cast<std::size_t>(k) + 1;
      const bool label = next < t.ids.size() && t.trained[next];
      EXPECT_EQ(b.labels[i], label ? b.ids[i] + 1 : kIgnore);
    }
  }
  std::int64_t want_tokens = 0, want_trained = 0;
  for (const Tokens& t : samples) {
    want_tokens += static_cast<std::int64_t>(t.ids.size());
    want_trained += std::accumulate(t.trained.begin() + 1, t.trained.end(), 0);
    for (std::int32_t id : t.ids) EXPECT_EQ(seen[id], 1);
  }
  EXPECT_EQ(tokens, want_tokens);
  EXPECT_EQ(trained, want_trained);
}

TEST(Dataset, StepNIsTheSameWhetherResumedOrNot) {
  const auto samples = random_samples(100);
  std::vector<std::uint32_t> all(samples.size());
  std::iota(all.begin(), all.end(), 0u);
  Packed a(samples, all, {.seq_len = 64, .rows = 2, .seed = 9}),
      b(samples, all, {.seq_len = 64, .rows = 2, .seed = 9});
  Batch x = a.make_batch(), y = b.make_batch(), first = a.make_batch();
  const std::int64_t n = a.batches_per_epoch() + 3;
  a.fill(3, first);
  for (std::int64_t i = 0; i <= n; ++i) a.fill(i, x);
  const auto* buffer = x.ids.data();
  b.fill(n, y);
  EXPECT_EQ(x.ids, y.ids);
  EXPECT_EQ(x.labels, y.labels);
  EXPECT_EQ(x.ids.data(), buffer);
  EXPECT_NE(x.ids, first.ids);  // another epoch, another order
}

TEST(Dataset, EvaluationSplitIsFivePercentAtMostTwoHundredAndDisjoint) {
  EXPECT_TRUE(split_samples(199, -1, 1).eval.empty());
  EXPECT_EQ(split_samples(200, -1, 1).eval.size(), 10u);
  EXPECT_EQ(split_samples(10000, -1, 1).eval.size(), 200u);
  const Split s = split_samples(1000, -1, 1), again = split_samples(1000, -1, 1);
  EXPECT_EQ(s.eval, again.eval);
  std::vector<std::uint32_t> both = s.train;
  both.insert(both.end(), s.eval.begin(), s.eval.end());
  std::sort(both.begin(), both.end());
  for (std::uint32_t i = 0; i < 1000; ++i) ASSERT_EQ(both[i], i);
}

TEST(Dataset, ReportCountsWhatIsWrong) {
  const ChatTemplate open("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
                          "open");
  Heap heap;
  const Value row = parse_json(
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a long answer"}]})",
      heap);
  const Value empty = parse_json(
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":" "}]})", heap);
  RenderOptions options;
  options.chat_template = &open;
  options.seq_len = 8;
  std::vector<Tokens> out;
  for (const Value& v : {row, empty})
    tokenize_sample(normalize_row(v, Layout::messages, heap), byte_tokenizer(), options, out);
  const DataReport r = check_data(out, {}, {.seq_len = 8});
  EXPECT_EQ(r.cut, 1);
  EXPECT_EQ(r.empty_answers, 1);
  EXPECT_EQ(r.open_turns, 2);
  EXPECT_NE(to_string(r).find("will not learn to stop"), std::string::npos);
}

}  // namespace
}  // namespace supersonic::text
