#include "ops/kv_step.h"

#include "ops/kv_append.h"

namespace supersonic {

void KvStep::infer(Infer& i) {
  i.inputs(8);
  const Shape &q = i.shape(2), &k = i.shape(3);
  i.check(q.rank == 3 && k.rank == 3 && q[0] == k[0] && q[2] == k[2] && i.shape(4) == k, "q must be (T, H, D), k and v (T, G, D)");
  for (int cache : {0, 1})
    i.check(i.shape(cache).rank == 3 && i.shape(cache)[1] == k[1] && i.shape(cache)[2] == k[2] && k[0] <= i.shape(cache)[0],
            "caches (S, G, D) take rows (T, G, D)");
  i.check(i.shape(5) == Shape{q[0]} && i.shape(6).rank == 1 && i.shape(6)[0] > 0 && 2 * i.shape(6)[0] <= q[2],
          "positions must be (T) and inv_freq (R/2) with R at most D");
  i.check(i.shape(7) == Shape{1}, "at must be (1)");
  i.output(q, i.spec(2).dtype);
}

Tensors KvStep::define(const KvStep& a, Args in) {
  auto turned = [&](const Tensor& x) { return rope(x, in[5], in[6], a.turn.interleaved != 0, a.turn.magnitude); };
  const Tensor q = turned(in[2]), k = turned(in[3]);
  kv_append(in[0], k, in[7]);
  kv_append(in[1], in[4], in[7]);
  return {q};
}

}  // namespace supersonic
