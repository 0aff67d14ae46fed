// A model's weights where a backend's kernels read them.
#include <unordered_map>

#include "core/device.h"
#include "models/model.h"

namespace supersonic::models {

void make_resident(Model& model, Backend& backend) {
  std::unordered_map<Storage*, StorageRef> moved;  // a tied head stays the embedding's storage
  auto move = [&](StorageRef& s) {
    if (!s) return;
    StorageRef& there = moved[s.get()];
    if (!there) there = resident(s, backend);
    s = there;
  };
  // Old storages stay until all are moved, so that no address is taken twice for a key.
  const Model kept = model;
  for (StorageRef* s : {&model.embedding, &model.head, &model.final_norm, &model.inv_freq})
    move(*s);
  for (Layer& l : model.layers) {
    move(l.attention_norm);
    move(l.mlp_norm);
  }
  for (nn::Linear* l : model.linears()) {
    move(l->weight);
    move(l->bias);
  }
}

}  // namespace supersonic::models
