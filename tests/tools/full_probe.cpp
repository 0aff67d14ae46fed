// Full fine-tuning of a model by the trainer, for the Python tests.
//   full_probe MODEL OUT fp32|bf16 cpu|cuda < job > answer
// Input: {"batches": [[ids, …], …], "steps", "optimizer": {"lr", "weight_decay", "beta1", "beta2",
// "eps", "clip"}, "eight_bit", "seed"}. The sequences of a batch lie one behind another in one row
// and do not see each other; every next token is learned; step s takes batch s mod their number.
// Output: {"losses", "gradient_norms"} of each step. OUT becomes a model folder.
#include <filesystem>
#include <iostream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "core/device.h"
#include "core/error.h"
#include "models/export.h"
#include "packed_batch.h"
#include "train/trainer.h"

namespace {

using namespace supersonic;
using supersonic::testing::packed;
using Json = nlohmann::json;

train::OptimizerOptions optimizer_of(const Json& job) {
  const Json& o = job["optimizer"];
  train::OptimizerOptions options;
  options.beta1 = o["beta1"], options.beta2 = o["beta2"], options.eps = o["eps"];
  options.weight_decay = o["weight_decay"], options.max_grad_norm = o["clip"];
  options.eight_bit = job.value("eight_bit", false);
  options.seed = job.value("seed", 0);
  return options;
}

int probe(const std::string& path, const std::string& out, Compute compute, const char* device) {
  const Json job = Json::parse(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  std::vector<text::Batch> batches;
  for (const Json& b : job["batches"]) batches.push_back(packed(b));
  models::Model model = models::load_model(path);
  train::Parameters parameters = train::plan_weights(model);
  train::take_weights(model, parameters);
  Executor executor(device_backend(device));
  train::Trainer trainer(model, parameters, executor,
                         static_cast<std::int64_t>(batches.at(0).ids.size()), compute,
                         optimizer_of(job));
  trainer.plan().verify();
  Json losses = Json::array(), norms = Json::array();
  for (std::int64_t step = 0; step < job["steps"].get<std::int64_t>(); ++step) {
    const text::Batch& b = batches[static_cast<std::size_t>(step) % batches.size()];
    losses.push_back(trainer.accumulate(b, 1.0f / static_cast<float>(b.trained)));
    norms.push_back(trainer.step(step + 1, job["optimizer"]["lr"]));
  }
  trainer.bring_home();
  std::filesystem::create_directories(out);
  models::write_hf_model(model, out, {});
  std::cout << Json{{"losses", losses}, {"gradient_norms", norms}}.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 5)
      return probe(argv[1], argv[2], argv[3] == std::string("bf16") ? Compute::bf16 : Compute::fp32,
                   argv[4]);
    std::cerr << "usage: full_probe MODEL OUT fp32|bf16 cpu|cuda < job\n";
  } catch (const Error& e) {
    std::cerr << e.what() << "\n";
  }
  return 2;
}
