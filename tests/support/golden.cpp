// The reader of golden files.
#include "support/golden.h"

#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace supersonic::testing {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no golden file " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <typename Stored, typename T>
void append(const std::string& blob, size_t offset, size_t count, std::vector<T>& out) {
  for (size_t i = 0; i < count; ++i) {
    Stored value;
    blob.copy(reinterpret_cast<char*>(&value), sizeof value, offset + i * sizeof value);
    out.push_back(static_cast<T>(value));
  }
}

}  // namespace

Golden::Golden(const std::string& name) : name_(name) {
  const std::string path = std::string(SUPERSONIC_GOLDEN_DIR) + "/" + name;
  json_ = nlohmann::json::parse(read_file(path + ".json"));
  if (json_.contains("arrays")) blob_ = read_file(path + ".bin");
}

const nlohmann::json& Golden::entry(const std::string& array) const {
  if (!json_.contains("arrays") || !json_["arrays"].contains(array))
    throw std::runtime_error(name_ + ": no array " + array);
  return json_["arrays"][array];
}

std::vector<size_t> Golden::shape(const std::string& array) const {
  return entry(array)["shape"].get<std::vector<size_t>>();
}

template <typename T>
std::vector<T> Golden::array(const std::string& array) const {
  size_t count = 1;
  for (const size_t dim : shape(array)) count *= dim;
  const std::string dtype = entry(array)["dtype"];
  const size_t offset = entry(array)["offset"];
  const size_t bytes = count * (dtype == "f64" ? 8 : 4);
  if (dtype == "f16")
    throw std::runtime_error(name_ + ": f16 arrays are read by the Python tests only");
  if (offset + bytes > blob_.size())
    throw std::runtime_error(name_ + ".bin is too short for " + array);
  std::vector<T> values;
  values.reserve(count);
  if (dtype == "f64") append<double>(blob_, offset, count, values);
  if (dtype == "f32") append<float>(blob_, offset, count, values);
  if (dtype == "i32") append<int32_t>(blob_, offset, count, values);
  return values;
}

template std::vector<float> Golden::array(const std::string&) const;
template std::vector<double> Golden::array(const std::string&) const;
template std::vector<int32_t> Golden::array(const std::string&) const;

}  // namespace supersonic::testing
