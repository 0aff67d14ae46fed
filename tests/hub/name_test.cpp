// Names of models, and paths that a server sends: what may become a path here, and what may not.
// The rules for owners and names are those of huggingface_hub's validate_repo_id.
#include "hub/name.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "hub/url.h"

namespace supersonic::hub {
namespace {

TEST(HubName, HasOwnerNameChoiceAndRevision) {
  const auto n = parse_name("Qwen/Qwen2.5-0.5B-Instruct-GGUF:q4_k_m@refs/pr/1");
  ASSERT_TRUE(n);
  EXPECT_EQ(n->owner, "Qwen");
  EXPECT_EQ(n->name, "Qwen2.5-0.5B-Instruct-GGUF");
  EXPECT_EQ(n->choice, "q4_k_m");
  EXPECT_EQ(n->revision, "refs/pr/1");
  EXPECT_EQ(n->text(), "Qwen/Qwen2.5-0.5B-Instruct-GGUF:q4_k_m@refs/pr/1");
}

TEST(HubName, TheRevisionIsMainUnlessGiven) {
  for (const char* text : {"a/b", "hf://a/b"}) {
    const auto n = parse_name(text);
    ASSERT_TRUE(n);
    EXPECT_EQ(n->revision, "main");
    EXPECT_FALSE(n->revision_given);
    EXPECT_EQ(n->text(), "a/b");
  }
}

TEST(HubName, AFileMayLieInAFolderAndHaveAnAtSign) {
  EXPECT_EQ(parse_name("a/b:Q6_K/x@y-00001-of-00002.gguf@v1")->choice,
            "Q6_K/x@y-00001-of-00002.gguf");
  EXPECT_EQ(parse_name("a/b@v1.0")->revision, "v1.0");
}

TEST(HubName, WhatIsNoneIsRefusedWithAReason) {
  for (const char* text :
       {"",         "a",        "/a",   "a/",       "a/b/c",      "a b/c",    "./a",     "a/.b",
        "a/b.",     "-a/b",     "a/b-", "a--b/c",   "a/b--c",     "a/..",     "../a",    "a/b..c",
        "a/b.git",  "a/b:",     "a/b@", "a/b:../c", "a/b:/c",     "a/b@../c", "a/b@a b", "a/b@/x",
        "a/b@x//y", "a/b:x\\y", "~/b",  "a/b\n",    "\xc3\xa9/b", "a/b:\xff"}) {
    std::string why;
    EXPECT_FALSE(parse_name(text, &why)) << text;
    EXPECT_FALSE(why.empty()) << text;
    EXPECT_THROW(require_name(text), Error) << text;
  }
  EXPECT_FALSE(parse_name(std::string(60, 'a') + "/" + std::string(60, 'b')));
}

TEST(HubPath, StaysBelowItsFolder) {
  for (const char* path :
       {"a", "a/b", "a.b", "..a", "a..", "...", "a b", "model-00001-of-00002.safetensors",
        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"})
    EXPECT_EQ(path_problem(path), "") << path;
  for (const char* path : {"",
                           "/",
                           "/a",
                           "a/",
                           "a//b",
                           ".",
                           "..",
                           "a/..",
                           "../a",
                           "a/../b",
                           "a/./b",
                           "a\\b",
                           "a\nb",
                           "a\x7f",
                           "\x1b[2J",
                           ".git",
                           ".git/hooks/x",
                           "a/.git/x",
                           "\xff",
                           "\xc0\xaf",
                           "\xed\xa0\x80",
                           "\xf4\x90\x80\x80",
                           "\xc2\x85",
                           "\xe2\x82"})
    EXPECT_NE(path_problem(path), "") << path;
  EXPECT_NE(path_problem(std::string_view("a\0b", 3)), "");
  EXPECT_NE(path_problem(std::string(256, 'a')), "");
  EXPECT_NE(path_problem([] {
              std::string s;
              for (int i = 0; i < 600; ++i) s += "a/";
              return s + "a";
            }()),
            "");
}

TEST(HubPath, IsEncodedInAddresses) {
  EXPECT_EQ(url_path("a b/c#d?e%f.gguf"), "a%20b/c%23d%3Fe%25f.gguf");  // RFC 3986, section 2
  EXPECT_EQ(url_segment("refs/pr/1"), "refs%2Fpr%2F1");
  EXPECT_EQ(url_path("\xc3\xa9"), "%C3%A9");
}

TEST(HubText, OfAServerHasNoControlCharacters) {
  EXPECT_EQ(printable("a\x1b[31mb\nc\xff"
                      "d\xc2\x9b"),
            "a?[31mb?c?d?");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
}

TEST(HubUrl, AnOriginIsSchemeHostAndPort) {
  EXPECT_EQ(origin_of("https://Hub.example/a?b"), "https://hub.example:443");
  EXPECT_EQ(origin_of("HTTP://hub.example:8080"), "http://hub.example:8080");
  EXPECT_EQ(origin_of("https://[::1]/x"), "https://[::1]:443");
  for (const char* url :
       {"ftp://a/b", "https://", "a/b", "https://user@host/", "javascript:alert(1)", "https://a@b"})
    EXPECT_EQ(origin_of(url), "") << url;
}

// RFC 3986, section 5.4, as far as redirects of the hub use it; Python's urljoin gives the same.
TEST(HubUrl, RedirectsLeadWhereTheyShould) {
  const std::string base = "https://hub.example/a/b/c?d";
  EXPECT_EQ(redirected(base, "https://cdn.example/x?y"), "https://cdn.example/x?y");
  EXPECT_EQ(redirected(base, "/x"), "https://hub.example/x");
  EXPECT_EQ(redirected(base, "x"), "https://hub.example/a/b/x");
  EXPECT_EQ(redirected(base, "//cdn.example/x"), "https://cdn.example/x");
  for (const char* location :
       {"", "http://cdn.example/x", "file:///etc/passwd", "https://u@cdn.example/", "https://a b/",
        "/\\evil.example", "/a\r\nX: y", "https://", "http:///x"})
    EXPECT_EQ(redirected(base, location), "") << location;
  EXPECT_EQ(redirected("http://localhost:1/a", "http://cdn.example/x"), "http://cdn.example/x");
}

TEST(HubUrl, OnlyAddressesOfThisMachineAreThisMachine) {
  for (const char* url : {"http://localhost/x", "http://127.0.0.1:8080", "http://[::1]:80/"})
    EXPECT_TRUE(is_this_machine(origin_of(url))) << url;
  for (const char* url : {"http://127.evil.example/", "http://localhost.evil.example",
                          "http://10.0.0.1", "https://localhost", "http://[::2]/"})
    EXPECT_FALSE(is_this_machine(origin_of(url))) << url;
}

TEST(HubUrl, OfTheHubAtAMirror) {
  EXPECT_EQ(at_endpoint("https://huggingface.co/api/x?y", "https://mirror.example/hf"),
            "https://mirror.example/hf/api/x?y");
  EXPECT_EQ(at_endpoint("https://huggingface.co.evil.example/x", "https://mirror.example"),
            "https://huggingface.co.evil.example/x");
}

}  // namespace
}  // namespace supersonic::hub
