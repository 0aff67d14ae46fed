// Reads a golden file: NAME.json and the arrays in the NAME.bin beside it (tests/oracle/golden.py
// writes both). Throws std::runtime_error with the file's name where something is missing, so that
// a test fails and says which.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace supersonic::testing {

class Golden {
 public:
  // name: relative to tests/golden, without ending, for example "smollm2/lora".
  explicit Golden(const std::string& name);

  const nlohmann::json& json() const { return json_; }
  std::vector<size_t> shape(const std::string& array) const;
  // The array's values, row-major, converted to float, double or int32_t.
  template <typename T>
  std::vector<T> array(const std::string& array) const;

 private:
  const nlohmann::json& entry(const std::string& array) const;
  std::string name_;
  nlohmann::json json_;
  std::string blob_;
};

}  // namespace supersonic::testing
