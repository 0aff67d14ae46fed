// What a run trains: flat arrays of values, each with an array of gradients beside it, on which the
// optimizer works as wholes. They are an adapter's matrices beside a frozen model, or all weights
// of the model itself, whose storages then are parts of the arrays.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "models/model.h"

namespace supersonic::train {

struct Parameters {
  struct Group {
    std::string name;      // of its array in a checkpoint
    std::string prefix;    // of its moments there
    StorageRef values;     // (n) f32 or bf16, in host memory; of planned weights without memory
    StorageRef gradients;  // (n) f32; empty: the trainer makes them where kernels work
    bool decay = true;     // weight decay applies
    bool coded = true;     // moments may have 8 bits
  };
  // Where a weight lies, in the order of for_each_weight().
  struct Slot {
    std::size_t group;
    std::int64_t offset;  // in elements
    Spec spec;
  };
  std::vector<Group> groups;
  nn::LoraSet* lora = nullptr;  // the adapter, whose storages are the only group's
  std::vector<Slot> slots;      // of all weights; empty beside an adapter

  Parameters() = default;
  Parameters(nn::LoraSet& set);
  bool whole() const { return !lora; }
  std::size_t bytes() const;  // of the values
};

struct LoraOptions {
  std::int64_t rank = 16;
  double alpha = 32;
  // Module suffixes ("q_proj"; of a mixture also "gate_up_proj", "down_proj" of its experts),
  // all-linear (all linear layers, no experts) or experts (theirs); empty: all-linear.
  std::vector<std::string> targets;
  std::uint64_t seed = 0;
};

// Adds an adapter to the model's linears and experts, as targeted, and returns its set: A uniform
// in ±1/sqrt(in) (Kaiming with a = sqrt 5, as PEFT), B zero. Throws Error(usage) for a target that
// the model has not.
nn::LoraSet make_lora(models::Model& model, const LoraOptions& options, bool train);

// All weights of the model, without memory: matrices in bf16 (of an f16 file too) or f32, as the
// file has them, and norms and biases, which are few and do not decay, in f32 with moments of 32
// bits. A tied head is the table of embeddings. Throws Error(usage) for quantized weights and for
// mixtures of experts.
Parameters plan_weights(const models::Model& model);
// The model's weights in those arrays, which get memory now and take the model's values; the
// model's storages become parts of them.
void take_weights(models::Model& model, Parameters& parameters);
// The same model with its weights in `arrays`, one for each group; without memory where those have
// none.
models::Model with_weights(const models::Model& model, const Parameters& parameters,
                           std::span<const StorageRef> arrays);
// The weights of a model, each once, in the order of Parameters::slots.
std::vector<StorageRef> weights_of(const models::Model& model);

}  // namespace supersonic::train
