// Where helpers run.
#pragma once
#include <thread>
#include <vector>

namespace affuse {

// The processor this thread runs on; -1: not known on this system.
int this_processor();

// To be called by whoever makes the pool: its helpers never run where that thread may not.
void remember_processors();

// To be called by every helper first: what it may use from then on is no caller's wish, and is not handed on to the others
// should a task of its own want helpers.
void become_helper();

// Lets `helpers` run on every remembered processor that this thread may use but `processor`; nothing changes where there is
// no other.
//
// Linux likes to put a thread that is woken onto the processor of its waker and moves it elsewhere only milliseconds later:
// with two processors a helper that had slept then shares one with its caller while the other stands idle.
void keep_off(std::vector<std::thread>& helpers, int processor);

}  // namespace affuse
