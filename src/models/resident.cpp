// A model's weights where a backend's kernels read them.
#include <unordered_map>

#include "core/device.h"
#include "models/parts.h"

namespace supersonic::models {
namespace {

enum class Lies { inside, copied_in, read_outside };

// to(storage, where it shall lie) for each storage of the model, once; its result takes the
// storage's place.
template <class F>
void move_all(Model& model, const Residence& residence, F to) {
  std::unordered_map<Storage*, StorageRef> moved;  // a tied head stays the embedding's storage
  // Old storages stay until all are moved, so that no address is taken twice for a key.
  const Model kept = model;
  auto move = [&](StorageRef& s, Lies where) {
    if (!s) return;
    StorageRef& there = moved[s.get()];
    if (!there) {
      if (where != Lies::inside) model.outside += s->bytes;
      there = to(s, where);
    }
    s = there;
  };
  const auto layers = static_cast<std::int64_t>(model.layers.size());
  for (Rotation* r : {&model.rope, &model.local_rope, &model.long_rope})
    move(r->inv_freq, Lies::inside);
  if (residence.table_outside && !(model.head == model.embedding))
    move(model.embedding, Lies::read_outside);
  for_each_part(model, [&](const PartInfo& info, auto& part) {
    if constexpr (requires { part.weight; }) {
      move(part.weight, info.layer >= 0 && residence.outside(info.layer, layers) ? Lies::copied_in
                                                                                 : Lies::inside);
      move(part.bias, Lies::inside);
    } else {
      move(part, Lies::inside);
    }
  });
}

}  // namespace

void make_resident(Model& model, Backend& backend) { make_resident(model, backend, {}); }

void make_resident(Model& model, Backend& backend, const Residence& residence) {
  move_all(model, residence, [&](const StorageRef& s, Lies where) {
    if (where == Lies::inside) return resident(s, backend);
    const Backend::Locked locked = backend.lock(s);
    return where == Lies::copied_in ? locked.copied : locked.read;
  });
}

Model planned_residence(const Model& model, Backend& backend, const Residence& residence) {
  Model planned = model;
  move_all(planned, residence, [&](const StorageRef& s, Lies where) {
    StorageRef there = Storage::external(s->spec, {}, s->name, [s] {});
    there->place = where == Lies::copied_in ? Place{Place::pinned, 0} : backend.compute_place();
    return there;
  });
  return planned;
}

}  // namespace supersonic::models
