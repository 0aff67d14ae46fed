// A model's weights where a backend's kernels read them.
#include <algorithm>
#include <unordered_map>
#include <vector>

#include "core/device.h"
#include "core/executor.h"
#include "models/parts.h"
#include "ops/accumulate.h"
#include "ops/dequantize.h"

namespace supersonic::models {
namespace {

enum class Lies { inside, dense, copied_in, read_outside };

Spec dense_spec(const Spec& quantized) { return {quantized.shape, DType::bf16, nullptr}; }

bool quantized_matrix(const StorageRef& s) {
  return s && s->spec.format && s->spec.shape.rank == 2;
}

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
      if (where == Lies::copied_in || where == Lies::read_outside) model.outside += s->bytes;
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
      const bool outside = info.layer >= 0 && residence.outside(info.layer, layers),
                 dense = info.kind == PartKind::linear && residence.decoded(info.layer, layers) &&
                         quantized_matrix(part.weight);
      move(part.weight, outside ? Lies::copied_in : dense ? Lies::dense : Lies::inside);
      move(part.bias, Lies::inside);
    } else {
      move(part, Lies::inside);
    }
  });
}

}  // namespace

void make_resident(Model& model, Backend& backend) { make_resident(model, backend, {}); }

std::size_t bytes_to_decode_layer(const Model& model) {
  std::vector<std::size_t> more(model.layers.size());
  for_each_part(model, [&](const PartInfo& info, const auto& part) {
    if constexpr (requires { part.weight; })
      if (info.kind == PartKind::linear && quantized_matrix(part.weight))
        more[static_cast<std::size_t>(info.layer)] +=
            bytes_of(dense_spec(part.weight->spec)) - part.weight->bytes;
  });
  return more.empty() ? 0 : *std::max_element(more.begin(), more.end());
}

void make_resident(Model& model, Backend& backend, const Residence& residence) {
  Executor executor(backend);
  move_all(model, residence, [&](const StorageRef& s, Lies where) {
    if (where == Lies::dense) {
      // What goes again is taken last, so that its memory does.
      const StorageRef dense = backend.storage(dense_spec(s->spec), s->name),
                       packed = resident(s, backend);
      assign(from_storage(dense), dequantize(from_storage(packed), DType::bf16));
      eval(executor);
      return dense;
    }
    if (where == Lies::inside) return resident(s, backend);
    const Backend::Locked locked = backend.lock(s);
    return where == Lies::copied_in ? locked.copied : locked.read;
  });
}

Model planned_residence(const Model& model, Backend& backend, const Residence& residence) {
  Model planned = model;
  move_all(planned, residence, [&](const StorageRef& s, Lies where) {
    const Spec spec = where == Lies::dense ? dense_spec(s->spec) : s->spec;
    StorageRef there = Storage::external(spec, {}, s->name, [s] {});
    there->place = where == Lies::copied_in ? Place{Place::pinned, 0} : backend.compute_place();
    return there;
  });
  return planned;
}

}  // namespace supersonic::models
