// A model's weights where a backend's kernels read them.
#include <unordered_map>

#include "core/device.h"
#include "models/parts.h"

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
  for (Rotation* r : {&model.rope, &model.local_rope, &model.long_rope}) move(r->inv_freq);
  for_each_part(model, [&](const PartInfo&, auto& part) {
    if constexpr (requires { part.weight; }) {
      move(part.weight);
      move(part.bias);
    } else {
      move(part);
    }
  });
}

}  // namespace supersonic::models
