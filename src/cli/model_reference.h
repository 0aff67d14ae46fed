// What stands for a model on the command line, for all commands alike: a file or folder, or
// [hf://]OWNER/NAME[:FILE|:QUANT][@REVISION] of a model in the hub's cache. Options that take one
// say so (Option::model()), and the path is put in the place of the name before the command runs.
#pragma once
#include <string>

namespace supersonic::cli {

// The path: the text itself where there is such a file or folder, else that of the model in the
// cache. Downloads nothing. Throws Error(bad_file) with the command that does; a text that can be
// no name is returned as it is, for the loader to say what is wrong with it.
std::string resolve_model(const std::string& text);

// What to call a model that was loaded from this path: OWNER/NAME of one in the cache, else the
// file's or folder's name.
std::string model_label(const std::string& path);
// OWNER/NAME of a path in the cache; empty for others.
std::string cached_name(const std::string& path);

}  // namespace supersonic::cli
