// Where helpers run.
#pragma once
#include <thread>
#include <vector>

namespace affuse {

// The processor this thread runs on; -1: not known on this system.
int this_processor();

// Lets `helpers` run on every processor that this thread may use but `processor`; nothing changes where there is no other.
//
// Linux likes to put a thread that is woken onto the processor of its waker and moves it elsewhere only milliseconds later:
// with two processors a helper that had slept then shares one with its caller while the other stands idle.
void keep_off(std::vector<std::thread>& helpers, int processor);

}  // namespace affuse
