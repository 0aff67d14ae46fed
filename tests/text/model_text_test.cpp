// A real model's text side as the data pipeline uses it: tokens end where they should, answers are
// masked exactly. Needs the SmolLM2 GGUF file: SUPERSONIC_SMOLLM2, or .cache/models of this
// repository.
#include "text/model_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"
#include "text/dataset.h"
#include "text/jinja_json.h"
#include "text/tokenizer.h"

namespace supersonic::text {
namespace {

std::string smollm2() {
  if (const char* path = std::getenv("SUPERSONIC_SMOLLM2")) return path;
  const std::string root = std::filesystem::path(SUPERSONIC_GOLDEN_DIR) / "../..";
  return root + "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class SmolLM2Text : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(smollm2())) GTEST_SKIP() << "no model at " << smollm2();
    model = std::make_unique<ModelText>(smollm2());
    tokenizer = std::make_unique<Tokenizer>(model->tokenizer());
    view = model->view(*tokenizer);
  }
  std::unique_ptr<ModelText> model;
  std::unique_ptr<Tokenizer> tokenizer;
  TokenizerView view;
};

TEST_F(SmolLM2Text, ViewSaysWhatTheModelSays) {
  EXPECT_EQ(view.bos_text, "<|im_start|>");
  EXPECT_EQ(view.eos_text, "<|im_end|>");
  EXPECT_EQ(tokenizer->token(view.bos), view.bos_text);
  EXPECT_EQ(tokenizer->token(view.eos), view.eos_text);
  EXPECT_TRUE(view.is_end_of_turn(view.eos));
  EXPECT_FALSE(view.is_end_of_turn(view.bos));
  EXPECT_FALSE(view.add_bos);
}

TEST_F(SmolLM2Text, PiecesBetweenEndsAreTheTokensBytes) {
  const std::string text =
      "<|im_start|>user\n\xF0\x9F\x8E\x89 na\xC3\xAFve 2024 \xE4\xBD\xA0\xE5\xA5\xBD<|im_end|>\n";
  const std::size_t user = text.find('\n') + 1, end = text.rfind('<');
  Encoded out;
  view.encode(text, {{0, user, true}, {user, end, false}, {end, text.size(), true}}, out);
  ASSERT_EQ(out.ids.size(), out.ends.size());
  EXPECT_EQ(out.ids[0], view.bos);
  std::size_t at = 0;
  for (std::size_t i = 0; i < out.ids.size();
       ++i) {  // byte-level tokens are exact, also inside a character
    EXPECT_EQ(tokenizer->piece(out.ids[i]), text.substr(at, out.ends[i] - at));
    at = out.ends[i];
  }
  EXPECT_EQ(at, text.size());
}

// Runs of trained tokens, decoded.
std::vector<std::string> trained(const Tokens& t, const Tokenizer& tokenizer) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < t.ids.size(); ++i) {
    if (!t.trained[i]) continue;
    if (i == 0 || !t.trained[i - 1]) out.emplace_back();
    out.back() += tokenizer.piece(t.ids[i]);
  }
  return out;
}

TEST_F(SmolLM2Text, ExactlyTheAnswersAndTheirEndsAreTrained) {
  const auto chat = model->chat_template();
  ASSERT_NE(chat, nullptr);
  Heap heap;
  const Value row = parse_json(
      R"({"messages":[{"role":"user","content":"Say <|im_end|> \u00e9"},{"role":"assistant","content":"Caf\u00e9 \ud83c\udf89"},)"
      R"({"role":"user","content":"  And\n"},{"role":"assistant","content":" x<|im_end|>\n<|im_start|>assistant\n\u4f60"}]})",
      heap);
  RenderOptions options;
  options.chat_template = chat.get();
  std::vector<Tokens> tokens;
  tokenize_sample(normalize_row(row, detect_layout(row), heap), view, options, tokens);
  ASSERT_EQ(tokens.size(), 1u);
  const Tokens& t = tokens[0];
  EXPECT_EQ(trained(t, *tokenizer),
            (std::vector<std::string>{"Caf\u00e9 \U0001F389<|im_end|>",
                                      " x<|im_end|>\n<|im_start|>assistant\n\u4f60<|im_end|>"}));
  // Five turns (with the default system prompt) start and end; what people spelt is text.
  EXPECT_EQ(std::count(t.ids.begin(), t.ids.end(), view.bos), 5);
  EXPECT_EQ(std::count(t.ids.begin(), t.ids.end(), view.eos), 5);
  EXPECT_FALSE(t.open_turn);
}

// transformers' ids, recorded by tests/oracle/record_smollm2.py; llama.cpp gives the same.
class SmolLM2Golden : public SmolLM2Text {
 protected:
  void SetUp() override {
    SmolLM2Text::SetUp();
    const std::string path = SUPERSONIC_GOLDEN_DIR "/smollm2/tokens.json";
    std::ifstream in(path);
    ASSERT_TRUE(in) << path;
    golden = nlohmann::json::parse(in);
  }
  using Ids = std::vector<std::int32_t>;
  nlohmann::json golden;
};

TEST_F(SmolLM2Golden, TextsHaveTheRecordedIds) {
  if (IsSkipped()) return;
  ASSERT_GE(golden["texts"].size(), 200u);
  for (const auto& text : golden["texts"]) {
    const std::string& s = text["text"].get_ref<const std::string&>();
    EXPECT_EQ(tokenizer->encode(s), text["ids"].get<Ids>()) << s;
    EXPECT_EQ(tokenizer->encode(s, {.parse_special = true}), text["ids_parse_special"].get<Ids>())
        << s;
  }
}

TEST_F(SmolLM2Golden, ChatsHaveTheRecordedIds) {
  if (IsSkipped()) return;
  const auto chat = model->chat_template();
  ASSERT_NE(chat, nullptr);
  ASSERT_FALSE(golden["chats"].empty());
  for (const auto& recorded : golden["chats"]) {
    Heap heap;
    ChatInput input = parse_chat_input(recorded["messages"].dump(), heap);
    input.bos_token = view.bos_text, input.eos_token = view.eos_text;
    input.add_generation_prompt = recorded["add_generation_prompt"];
    const Rendered rendered = chat->render(input);
    EXPECT_EQ(rendered.text, recorded["rendered"].get<std::string>());
    Encoded out;
    view.encode(rendered.text, rendered.spans, out);
    EXPECT_EQ(out.ids, recorded["ids"].get<Ids>()) << rendered.text;
  }
}

}  // namespace
}  // namespace supersonic::text
