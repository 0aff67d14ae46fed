// Tokenizer: refusals that name the field, repair, scanners against PCRE2, long words. Ids against
// the `tokenizers` package are compared in tests/py/test_tokenizer.py.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "text/regex.h"
#include "text/scanners.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

const std::string kSmall =
    R"({"added_tokens":[{"id":5,"content":"<s>","special":true,"normalized":false}],
  "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"abab":3,"c":4},"merges":["a b",["ab","ab"]]}})";

std::string refusal(const std::string& json) {
  try {
    Tokenizer::from_json(json);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_file);
    return e.what();
  }
  return "";
}

std::string with(std::string json, const std::string& from, const std::string& to) {
  return json.replace(json.find(from), from.size(), to);
}

TEST(Tokenizer, RefusalsNameTheField) {
  EXPECT_NE(refusal("{").find("not valid JSON"), std::string::npos);
  EXPECT_NE(refusal("{}").find("model: is missing"), std::string::npos);
  EXPECT_NE(refusal(with(kSmall, "\"a b\"", "\"a x\""))
                .find("model.merges[0]: 'x' is not in the vocabulary"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSmall, "\"c\":4", "\"c\":4000000000")).find("model.vocab['c']"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSmall, "\"BPE\"", "\"Markov\"")).find("'Markov' is not supported"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSmall, "\"model\"", R"("normalizer":{"type":"Odd"},"model")"))
                .find("normalizer 'Odd'"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSmall, "\"id\":5", "\"id\":\"5\"")).find("added_tokens[0].id"),
            std::string::npos);
  EXPECT_NE(refusal(std::string(100000, '[')), "");
}

TEST(Tokenizer, UserTextNeverMakesSpecialTokensUnlessAsked) {
  const auto t = Tokenizer::from_json(kSmall);
  EXPECT_EQ(
      t.encode("a<s>b"),
      std::vector<int32_t>{2});  // characters without a token vanish, and a, b become neighbours
  EXPECT_EQ(t.encode("a<s>b", {.parse_special = true}), (std::vector<int32_t>{0, 5, 1}));
  const TextSpan spans[] = {
      {0, 4, true}, {4, 8, false}, {8, 9, true}, {9, 11, false}, {11, 14, true}};
  Encoded out;
  t.encode_spans("<s>ab<s><s><s>", spans, out);
  EXPECT_EQ(out.ids, (std::vector<int32_t>{5, 2, 5}));  // a and b join across the border
  EXPECT_EQ(out.ends, (std::vector<uint32_t>{3, 5, 14}));
}

std::vector<uint32_t> ends(const Tokenizer& t, std::string_view text) {
  const TextSpan all[] = {{0, text.size(), true}};
  Encoded out;
  t.encode_spans(text, all, out);
  return out.ends;
}

// SentencePiece in small: a space in front, byte fallback, unknown characters fused.
const std::string kPieces =
    R"({"added_tokens":[{"id":8,"content":"<s>","special":true,"normalized":false}],
  "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"\u2581"},
    {"type":"Replace","pattern":{"String":" "},"content":"\u2581"}]},
  "model":{"type":"BPE","unk_token":"?","fuse_unk":true,"byte_fallback":true,
    "vocab":{"?":0,"\u2581":1,"a":2,"\u2581a":3,"\u00e9":4,"<0xC3>":5,"<0xA8>":6,"aa":7},
    "merges":["\u2581 a","a a"]}})";

TEST(Tokenizer, EndsAreThoseOfTheGivenText) {
  using Ends = std::vector<uint32_t>;
  const auto t = Tokenizer::from_json(kPieces);
  EXPECT_EQ(ends(t, "a a"), (Ends{1, 3}));            // the space in front joins the first letter
  EXPECT_EQ(ends(t, "\xC3\xA9 a"), (Ends{1, 2, 4}));  // alone, it counts with the byte behind it
  EXPECT_EQ(ends(t, "a\xC3\xA8"), (Ends{1, 2, 3}));   // byte tokens cut a character
  EXPECT_EQ(ends(t, "a\xF0\x9F\x98\x80zz a"), (Ends{1, 7, 9}));  // fused unknowns
  EXPECT_EQ(ends(t, "a\xF0\x9F zz"),
            (Ends{1, 3, 4, 6}));  // repaired: U+FFFD stands for what it replaces
  EXPECT_EQ(ends(t, "<s>a<s>"), (Ends{3, 4, 7}));
  EXPECT_EQ(ends(t, ""), Ends{});
  const auto composed = Tokenizer::from_json(
      with(kPieces, R"({"type":"Prepend","prepend":"\u2581"})", R"({"type":"NFC"})"));
  EXPECT_EQ(ends(composed, "aae\xCC\x81\xC3\xA9"), (Ends{2, 5, 7}));
  EXPECT_EQ(ends(composed, "aazz"), (Ends{2, 4}));
  const TextSpan gap[] = {{0, 1, true}, {2, 3, true}};
  Encoded out;
  EXPECT_THROW(t.encode_spans("abc", gap, out), Error);
}

// What the package tokenizers decodes; a vocabulary that names byte -1 or -15 made others index
// before their table.
TEST(Tokenizer, ByteTokensAreTwoHexDigitsAndNothingElse) {
  const auto t = Tokenizer::from_json(
      R"({"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]},
          "model":{"type":"BPE","byte_fallback":true,"merges":[],
          "vocab":{"<0x-1>":0,"<0x-F>":1,"<0xGG>":2,"<0x 1>":3,"<0x41>":4,"<0x041>":5,"<0x+1>":6}}})");
  const char* wanted[] = {"<0x-1>", "<0x-F>", "<0xGG>", "<0x 1>", "A", "<0x041>", "\x01"};
  for (std::int32_t id = 0; id < 7; ++id) EXPECT_EQ(t.decode(std::vector{id}), wanted[id]);
}

TEST(Tokenizer, OneHugeWordTakesLinearithmicTime) {
  const auto t = Tokenizer::from_json(kSmall);
  std::string text;
  for (int i = 0; i < 1000000; ++i) text += "ab";
  EXPECT_EQ(t.encode(text), std::vector<int32_t>(500000, 3));
}

// The package's own example of Unigram: "abcd" beats "ab" + "cd"; unknown neighbours are one token.
constexpr const char* kUnigram = R"({"added_tokens":[{"id":0,"content":"<unk>","special":true}],
  "model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",0.0],["b",0.0],["c",0.0],["d",0.0],
    ["cd",1.0],["ab",2.0],["abc",5.0],["abcd",10.0]]}})";

TEST(Tokenizer, UnigramTakesTheBestSumOfScores) {
  const auto t = Tokenizer::from_json(kUnigram);
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(t.encode("abcdacdxx"), (Ids{8, 1, 5, 0}));
  EXPECT_EQ(ends(t, "abcdaxya"), (std::vector<uint32_t>{4, 5, 7, 8}));
  EXPECT_EQ(t.encode("<unk>", {.parse_special = true}), Ids{0});
}

TEST(Tokenizer, WordPieceTakesTheLongestPieceOrCallsTheWordUnknown) {
  const auto t = Tokenizer::from_json(R"({"normalizer":{"type":"BertNormalizer","clean_text":true,
      "handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
    "pre_tokenizer":{"type":"BertPreTokenizer"},
    "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
    "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
      "max_input_chars_per_word":6,
      "vocab":{"[UNK]":0,"un":1,"##aff":2,"##able":3,"##a":4,"!":5,"a":6}}})");
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(t.encode("Un\xC3\xA0"
                     "ff !"),
            (Ids{1, 2, 5}));
  EXPECT_EQ(t.encode("unz a"), (Ids{0, 6}));
  EXPECT_EQ(t.encode("unaffable"), Ids{0});  // longer than six characters
  EXPECT_EQ(t.decode(Ids{1, 2, 5, 6}), "unaff! a");
}

TEST(Tokenizer, StreamHoldsBackWhatALaterTokenMayChange) {
  const auto t = Tokenizer::from_json(R"({"decoder":{"type":"BPEDecoder","suffix":"</w>"},
    "model":{"type":"BPE","vocab":{"a</w>":0,"b":1},"merges":[]}})");
  StreamDecoder stream(t);
  EXPECT_EQ(stream.push(0), "");
  EXPECT_EQ(stream.push(1), "a ");
  EXPECT_EQ(stream.push(0), "b");
  EXPECT_EQ(stream.finish(), "a");
}

TEST(SentencePiece, FilesThatLieAreRefusedWithFieldAndByte) {
  const auto message = [](std::string_view bytes) {
    try {
      Tokenizer::from_sentence_piece(bytes, {}, "m.model");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_file);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  using namespace std::string_view_literals;
  EXPECT_NE(message("\x0A\x7F\x0A"sv).find("m.model: ModelProto field 1"), std::string::npos);
  EXPECT_NE(message("\x0A\x02\x0A\xFF"sv).find("ends too early"), std::string::npos);
  EXPECT_NE(message("\x0A\x03\x0A\x01\xFF"sv).find("not UTF-8"), std::string::npos);
  EXPECT_NE(message("\x12\x02\x18\x03"sv).find("model_type"), std::string::npos);
  EXPECT_NE(message("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"sv).find("64 bits"),
            std::string::npos);
  EXPECT_NE(message(""sv).find("no pieces"), std::string::npos);
}

TEST(Unicode, MaximalInvalidPartsBecomeOneReplacementEach) {  // Unicode 15, table 3-8
  EXPECT_EQ(repair_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xEF\xBF\xBD"
            "c\xEF\xBF\xBD\xEF\xBF\xBD"
            "d");
  EXPECT_TRUE(valid_utf8("\xF4\x8F\xBF\xBF"));
  EXPECT_FALSE(valid_utf8("\xED\xA0\x80"));
}

// The table was read off the `tokenizers` package; PCRE2's own Unicode is older.
TEST(Regex, ClassesAreTheTablesWhateverPcre2Knows) {
  const std::pair<const char*, uint32_t> classes[] = {
      {"\\p{L}", kLetter},
      {"\\p{^Lo}", ~category_mask(Lo)},
      {"\\p{Mn}", category_mask(Mn)},
      {"[\\P{M}]", ~kMark},
      {"[^\\s\\p{L}\\p{N}]", ~(kSpace | kLetter | kNumber)},
      {"\\d", category_mask(Nd)},
      {"[\\S]", ~kSpace},
      {"\\D", ~category_mask(Nd)}};
  const uint8_t* table = category_table();
  for (const auto& [pattern, mask] : classes) {
    const Regex regex(pattern, "test");
    for (uint32_t first = 0; first < 0x110000; first += 0x800) {
      if (first == 0xD800) continue;
      std::string text, want, got;
      for (uint32_t c = first; c < first + 0x800; ++c) {
        append_utf8(text, c);
        if (in_mask(table[c], mask)) append_utf8(want, c);
      }
      std::vector<Match> matches;
      regex.find_all(text, matches);
      for (const Match& m : matches) got += text.substr(m.begin, m.end - m.begin);
      ASSERT_EQ(got, want) << pattern << " from " << first;
    }
  }
  std::vector<Match> words;
  Regex("\\w\\b", "test")
      .find_all("\xEF\xAC\x85\xC2\xBD/", words);  // U+FB05 U+00BD: both are word characters
  ASSERT_EQ(words.size(), 1u);
  EXPECT_EQ(words[0].begin, 3u);
}

TEST(Scanners, CutLikeTheirPatternUnderPcre2) {
  std::mt19937 random(3);
  const char* parts[] = {"a",
                         "B",
                         "\xC3\x89",
                         "1",
                         "22",
                         " ",
                         "  ",
                         "\n",
                         "\r\n",
                         "\t",
                         "'s",
                         "'LL",
                         "'\xC5\xBF",
                         "!?",
                         "/",
                         "\xCC\x81",
                         "\xE4\xB8\xAD",
                         "\xC2\xBD",
                         "\xF0\x9F\x98\x80",
                         "\xC2\xA0",
                         "\xCA\xB0",
                         "\xC7\x85"};
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern,
                                         kQwen35Pattern, kO200kPattern, kTekkenPattern}) {
    const Scanner scanner = find_scanner(pattern);
    ASSERT_NE(scanner, nullptr);
    const Regex regex(pattern, "test");
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (size_t i = 0, n = 1 + random() % 12; i < n; ++i)
        text += parts[random() % std::size(parts)];
      std::vector<Match> matches;
      regex.find_all(text, matches);
      const char *p = text.data(), *end = p + text.size();
      for (const Match& m : matches) {
        ASSERT_EQ(p - text.data(), static_cast<ptrdiff_t>(m.begin)) << text;
        p = scanner(p, end, category_table());
        ASSERT_EQ(p - text.data(), static_cast<ptrdiff_t>(m.end)) << text;
      }
      ASSERT_EQ(p, end);
    }
  }
}

}  // namespace
}  // namespace supersonic::text
