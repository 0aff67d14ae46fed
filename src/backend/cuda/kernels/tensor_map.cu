// Descriptions of matrices for the copy engine. The driver makes them; its entry is asked for at
// run time, since nothing links to it.
#include "backend/cuda/kernels/wgmma.cuh"

namespace supersonic::cuda {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled encoder() {
  static const EncodeTiled found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                           cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
    return reinterpret_cast<EncodeTiled>(entry);
  }();
  return found;
}

CUtensorMap boxes(const void* data, CUtensorMapDataType type, std::int64_t bytes,
                  std::int64_t columns, std::int64_t rows, std::int64_t ld, int box_rows) {
  CUtensorMap map{};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(ld * bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(128 / bytes),
                             static_cast<cuuint32_t>(box_rows)},
                   steps[2] = {1, 1};
  const CUresult made =
      encoder()(&map, type, 2, const_cast<void*>(data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace

CUtensorMap bf16_boxes(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t ld,
                       int box_rows) {
  return boxes(data, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, columns, rows, ld, box_rows);
}

CUtensorMap byte_boxes(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t ld,
                       int box_rows) {
  return boxes(data, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, columns, rows, ld, box_rows);
}

}  // namespace supersonic::cuda
