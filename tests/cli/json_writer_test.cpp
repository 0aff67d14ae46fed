// What the writer writes, nlohmann reads back unchanged.
#include "cli/json_writer.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace supersonic::cli {
namespace {

TEST(JsonWriter, WritesWhatAnotherParserReadsBack) {
  JsonWriter w;
  w.begin_object()
      .key("a\"b")
      .value("line\nbreak \\ \t \x01 \xc3\xa9")
      .key("n")
      .value(-5)
      .key("u")
      .value(~std::uint64_t{0});
  w.key("list")
      .begin_array()
      .value(1)
      .value(true)
      .null()
      .begin_object()
      .end_object()
      .begin_array()
      .end_array()
      .value("x, [")
      .value(2.5)
      .end_array();
  w.key("x").value(0.1).key("inf").value(std::numeric_limits<double>::infinity()).end_object();
  const auto json = nlohmann::json::parse(w.text());
  EXPECT_EQ(json["a\"b"], "line\nbreak \\ \t \x01 \xc3\xa9");
  EXPECT_EQ(json["n"], -5);
  EXPECT_EQ(json["u"], ~std::uint64_t{0});
  EXPECT_EQ(json["list"].dump(), "[1,true,null,{},[],\"x, [\",2.5]");
  EXPECT_EQ(json["x"], 0.1);
  EXPECT_TRUE(json["inf"].is_null());
}

TEST(JsonWriter, ReplacesBytesThatAreNotUtf8) {
  for (const char* bad :
       {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) {
    JsonWriter w;
    w.value(std::string("a") + bad + "b");
    const auto text = nlohmann::json::parse(w.text()).get<std::string>();
    EXPECT_TRUE(text.starts_with("a\xef\xbf\xbd")) << text;
    EXPECT_TRUE(text.ends_with("b"));
  }
}

}  // namespace
}  // namespace supersonic::cli
