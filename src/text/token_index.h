// String -> id over strings that live elsewhere (the model's token list): open addressing, one hash
// a look-up.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text {

uint64_t hash_bytes(std::string_view bytes);

class TokenIndex {
 public:
  void build(const std::vector<std::string>& tokens);  // empty strings are left out; of equal ones
                                                       // the last counts
  int32_t find(std::string_view token) const;          // -1 when absent

 private:
  const std::vector<std::string>* tokens_ = nullptr;
  std::vector<int32_t> slots_;
};

}  // namespace supersonic::text
