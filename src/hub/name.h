// How a model of the Hugging Face hub is called: [hf://]OWNER/NAME[:FILE|:QUANT][@REVISION]. And
// which names from outside may become paths here: the hub's own rules for owners and names, and for
// paths in a repository only those that stay below the folder that they are meant for.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace supersonic::hub {

struct ModelName {
  std::string owner, name;
  std::string choice;             // a file, or a GGUF type such as Q4_K_M; empty: what suits best
  std::string revision = "main";  // branch, tag or commit
  bool revision_given = false;

  std::string repo() const { return owner + "/" + name; }
  std::string text() const;  // as it was written, without hf://
};

// Empty where the text is no such name; `why` then says what is wrong with it.
std::optional<ModelName> parse_name(std::string_view text, std::string* why = nullptr);
// As parse_name, but throws Error(usage).
ModelName require_name(std::string_view text);

bool is_commit(std::string_view text);                   // 40 lower-case hexadecimal digits
bool is_hex(std::string_view text, std::size_t digits);  // lower case

// What is wrong with a path in a repository as a path below a folder: absolute, "..", a backslash,
// a control character, not UTF-8, too long, or inside .git. Empty: nothing.
std::string path_problem(std::string_view path);
// Throws Error(bad_file) where something is.
void check_path(std::string_view path, const std::string& source);

std::string url_path(std::string_view path);     // percent-encoded, "/" kept
std::string url_segment(std::string_view text);  // percent-encoded, "/" too
// Text of a server for messages: control characters and bytes that are not UTF-8 replaced, cut.
std::string printable(std::string_view text, std::size_t limit = 300);

}  // namespace supersonic::hub
