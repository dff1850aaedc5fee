#include <cstdio>

#include "op.h"

namespace affuse {

void Status::fail(const char* error_code, const char* format, ...) {
  if (code) return;  // the first error is the cause, what follows it usually is not
  code = error_code;
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
}

}  // namespace affuse
