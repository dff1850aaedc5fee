#include "roof.h"

namespace affuse::roof {

const KernelFn kRoofLoops[kIsaCount] = AFFUSE_KERNEL_TABLE(roof_loop);

}  // namespace affuse::roof
