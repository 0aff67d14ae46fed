// adapter_config.json of an adapter that is about to be written; shared by the adapter's two source
// files only.
#pragma once
#include <string>

namespace supersonic::io {

struct LoraAdapter;
std::string to_adapter_json(const LoraAdapter& adapter);

}  // namespace supersonic::io
