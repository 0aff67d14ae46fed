// Lines from a person or a pipe: on a terminal with editing and history (libedit, where the build
// found it), otherwise as they come.
#pragma once
#include <optional>
#include <string>

namespace supersonic::cli {

// Without its line end; nothing at the end of the input, and where interrupted() because Ctrl-C was
// pressed in the editor. `prompt` is shown on a terminal only.
std::optional<std::string> read_line(const char* prompt);
bool input_is_terminal();

}  // namespace supersonic::cli
