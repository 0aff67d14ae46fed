// The model card (README.md) of a repository that has none: front matter that the hub indexes, and
// what is known from the files themselves: base model, adapter settings, losses of the training
// run.
#pragma once
#include <string>

namespace supersonic::hub {

struct CardRequest {
  std::string folder;      // what is pushed: a folder, or the folder of a file
  std::string file;        // a single GGUF file; empty: the folder
  std::string repo;        // OWNER/NAME
  std::string base_model;  // OWNER/NAME; empty: what the files say
  std::string license;     // empty: what the base model's card in the cache says
  std::string cache;       // where that card is looked for
};

std::string make_card(const CardRequest& request);
// The base model that the files name, as OWNER/NAME; empty where they name none, or a file.
std::string base_model_of(const CardRequest& request);

}  // namespace supersonic::hub
