// affuse's codes for the CUDA runtime's errors. Of the device build only.
#pragma once
#include <cuda_runtime.h>

namespace affuse::cuda {

inline const char* code_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "ERR_AFFUSE_DEVICE_MEMORY";
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorSystemNotReady: return "ERR_AFFUSE_CUDA_DRIVER";
    case cudaErrorNoDevice: return "ERR_AFFUSE_CUDA_NO_DEVICE";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidDeviceFunction: return "ERR_AFFUSE_CUDA_ARCHITECTURE";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorContained:
    case cudaErrorECCUncorrectable: return "ERR_AFFUSE_DEVICE_LOST";
    default: return "ERR_AFFUSE_CUDA";
  }
}

}  // namespace affuse::cuda
