#include "ops/attend_step.h"

#include "ops/attention.h"
#include "ops/kv_step.h"
#include "ops/view.h"

namespace supersonic {

void AttendStep::infer(Infer& i) {
  i.inputs(10);
  const Shape &q = i.shape(2), &k = i.shape(3);
  i.check(q.rank == 3 && k.rank == 3 && q[0] == k[0] && q[2] == k[2] && k[1] > 0 &&
              q[1] % k[1] == 0 && i.shape(4) == k,
          "q must be (T, H, D), k and v (T, G, D) with H a multiple of G");
  for (int cache : {0, 1})
    i.check(i.shape(cache).rank == 3 && i.shape(cache)[1] == k[1] && i.shape(cache)[2] == k[2] &&
                k[0] <= i.shape(cache)[0],
            "caches (S, G, D) take rows (T, G, D)");
  const std::int64_t context = i.attrs.as<AttendStep>().context;
  i.check(context > 0 && context <= i.shape(0)[0] && context <= i.shape(1)[0],
          "{} rows of the caches cannot be attended", context);
  i.check(i.shape(5) == Shape{q[0]} && i.shape(6).rank == 1 && i.shape(6)[0] > 0 &&
              2 * i.shape(6)[0] <= q[2],
          "positions must be (T) and inv_freq (R/2) with R at most D");
  i.check(i.shape(7) == Shape{1}, "at must be (1)");
  i.check(i.shape(8) == Shape{q[0]} && i.shape(9) == Shape{q[0]}, "lo and hi must be (T)");
  i.output(q, i.spec(2).dtype);
}

Tensors AttendStep::define(const AttendStep& a, Args in) {
  const Tensors step(in.begin(), in.begin() + 8);
  const Tensor q = record(op<KvStep>(), Attrs::of(KvStep{a.turn}), step, Where::current())[0];
  auto rows = [&](int cache) { return slice(in[cache], 0, 0, a.context); };
  return {attention(q, rows(0), rows(1), in[8], in[9], a.softmax_scale)};
}

}  // namespace supersonic
