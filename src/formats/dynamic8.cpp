// The two maps, computed by the compiler.
#include "formats/dynamic8.h"

namespace supersonic::formats {

constinit const Dynamic8 kDynamicSigned(true);
constinit const Dynamic8 kDynamicUnsigned(false);

}  // namespace supersonic::formats
