# node-gyp insists on Node's headers and fetches them when it finds none, though binding.gyp compiles nothing itself: CMake
# does, with the headers of node-api-headers. package.json names this folder as nodedir, so that nothing is fetched.
{}
