// Loss and LoRA gradients of one training micro-batch in fp32, by the program that training builds,
// for the Python tests.
//   gradient_probe MODEL ADAPTER OUT < sequences > answer
// Input: a JSON list of lists of token ids. They lie one behind another in one row and do not see
// each other; every next token is learned. Output: {"loss": …}, the mean over these tokens. OUT
// becomes a PEFT folder of ADAPTER's shape whose matrices are the gradients of that loss, with
// Hugging Face's names and row order.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "models/adapter.h"
#include "packed_batch.h"
#include "train/trainer.h"

namespace {

using namespace supersonic;
using supersonic::testing::packed;

int probe(const std::string& path, const std::string& adapter, const std::string& out) {
  models::Model model = models::load_model(path);
  nn::LoraSet lora =
      models::attach_adapter(model, models::read_adapter(adapter, model), adapter, true);
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  const text::Batch batch =
      packed(nlohmann::json::parse(input).get<std::vector<std::vector<std::int32_t>>>());
  CHECK(batch.trained > 0, "nothing to learn: give a sequence of two tokens or more");
  Executor executor(cpu_backend());
  train::Trainer trainer(model, lora, executor, static_cast<std::int64_t>(batch.ids.size()),
                             Compute::fp32, {});
  trainer.plan().verify();
  const double loss = trainer.accumulate(batch, 1.0f / static_cast<float>(batch.trained));
  nn::LoraSet gradients = lora;
  gradients.values = lora.gradients;
  io::write_peft_adapter(out, models::extract_adapter(model, gradients));
  std::cout << nlohmann::json{{"loss", loss}}.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: gradient_probe MODEL ADAPTER OUT < sequences\n");
    return 2;
  }
  try {
    return probe(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
