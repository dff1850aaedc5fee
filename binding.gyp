# The door that npm and node-gyp know. CMake does the building (in build-cmake/, because node-gyp wipes build/); this copies the result.
{
  "targets": [
    {
      "target_name": "affuse",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/affuse.node.always"],
          "action": ["node", "scripts/build-native.mjs", "--out", "<(PRODUCT_DIR)/affuse.node"],
          "message": "Building affuse.node with CMake"
        }
      ]
    }
  ]
}
