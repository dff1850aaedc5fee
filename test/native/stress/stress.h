// Shared by the files of the stress program.
#pragma once
#include <affuse/affuse.h>

// Ends the program where the condition does not hold.
void require(bool condition, const char* what);

// devices.cc
void devices(int rounds);
