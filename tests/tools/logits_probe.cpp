// What the engine computes for given token ids, for the Python tests and for looking at a model.
//   logits_probe MODEL fp32|bf16|int8 [--chunk N] [--generate N] [--adapter PATH] [--out FOLDER]  <
//   requests  > answers
// A request is a JSON list of ids, one a line; its answer is a JSON object, one a line. --generate
// N: "continuation", the N greedy ids that follow (no token ends it), and "min_margin". --out:
// "all", a file with the logits of all positions from one pass (Scorer), and "last", one with those
// of the last position from a session fed in chunks; f32, little-endian.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "infer/score.h"
#include "infer/session.h"
#include "models/adapter.h"

namespace {

using namespace supersonic;
using Ids = std::vector<std::int32_t>;

struct Arguments {
  std::string model, compute, adapter, out;
  std::int64_t chunk = 512, generate = 0;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  CHECK(argc >= 3,
        "usage: logits_probe MODEL fp32|bf16|int8 [--chunk N] [--generate N] [--adapter PATH] "
        "[--out FOLDER]");
  a.model = argv[1], a.compute = argv[2];
  for (int i = 3; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    if (key == "--chunk") a.chunk = std::atoll(argv[i + 1]);
    if (key == "--generate") a.generate = std::atoll(argv[i + 1]);
    if (key == "--adapter") a.adapter = argv[i + 1];
    if (key == "--out") a.out = argv[i + 1];
  }
  return a;
}

Compute compute_of(const std::string& name) {
  for (Compute c : {Compute::fp32, Compute::bf16, Compute::int8})
    if (name == name_of(c)) return c;
  fail(ErrorKind::usage, "no arithmetic is called {}", name);
}

nlohmann::json generate(infer::Session& session, const Ids& prompt, std::int64_t count) {
  session.rewind(0);
  Ids continuation, next = prompt;
  float least = 1e30f;
  while (static_cast<std::int64_t>(continuation.size()) < count) {
    const auto logits = session.feed(next);
    const auto best = std::max_element(logits.begin(), logits.end());
    const float top = *best;
    float second = -1e30f;
    for (auto it = logits.begin(); it != logits.end(); ++it)
      if (it != best) second = std::max(second, *it);
    least = std::min(least, top - second);
    next = {static_cast<std::int32_t>(best - logits.begin())};
    continuation.push_back(next[0]);
  }
  return {{"continuation", continuation}, {"min_margin", least}};
}

std::string write_all(infer::Scorer& scorer, const Ids& ids, const std::string& path) {
  scorer.nll(ids, Ids(ids.size(), -1));
  std::ofstream out(path, std::ios::binary);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto row = scorer.logits(static_cast<std::int64_t>(i));
    out.write(reinterpret_cast<const char*>(row.data()),
              static_cast<std::streamsize>(row.size_bytes()));
  }
  CHECK(out.flush(), "{}: cannot be written", path);
  return path;
}

std::string write_last(infer::Session& session, const Ids& ids, const std::string& path) {
  session.rewind(0);
  const auto row = session.feed(ids);
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(row.data()),
            static_cast<std::streamsize>(row.size_bytes()));
  CHECK(out.flush(), "{}: cannot be written", path);
  return path;
}

int probe(const Arguments& a) {
  models::Model model = models::load_model(a.model);
  nn::LoraSet set;
  if (!a.adapter.empty())
    set = models::attach_adapter(model, models::read_adapter(a.adapter, model), a.adapter);
  const nn::LoraSet* lora = a.adapter.empty() ? nullptr : &set;
  Executor executor(cpu_backend());
  infer::SessionOptions options;
  options.compute = compute_of(a.compute);
  options.chunk = a.chunk;
  options.kv_type = {options.compute == Compute::fp32 ? DType::f32 : DType::bf16};
  options.lora = lora;
  std::vector<Ids> requests;
  std::size_t longest = 0;
  for (std::string line; std::getline(std::cin, line);) {
    requests.push_back(nlohmann::json::parse(line).get<Ids>());
    longest = std::max(longest, requests.back().size());
  }
  options.context = static_cast<std::int64_t>(longest) + a.generate;
  infer::Session session(model, executor, options);
  std::unique_ptr<infer::Scorer> scorer;
  if (!a.out.empty())
    scorer = std::make_unique<infer::Scorer>(model, executor, options.compute,
                                             static_cast<std::int64_t>(longest), true, lora);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    nlohmann::json answer;
    if (a.generate) answer = generate(session, requests[i], a.generate);
    if (!a.out.empty()) {
      const std::string base = a.out + "/" + std::to_string(i);
      answer["all"] = write_all(*scorer, requests[i], base + ".all");
      answer["last"] = write_last(session, requests[i], base + ".last");
    }
    std::cout << answer.dump() << "\n" << std::flush;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return probe(parse(argc, argv));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
