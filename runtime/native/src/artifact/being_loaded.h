// Asks lcc's writers to leave a folder where it is while it is loaded.
#pragma once

#include <string>

namespace lcc {

// As long as it lives, Python's `lcc.artifact.replace` waits before it puts another folder in place
// of this one, for some seconds at least. Nothing is promised: not every system has such locks, and
// others may write to the folder without them. What is read must still be compared with what it
// should be.
class BeingLoaded {
  public:
    explicit BeingLoaded(const std::string& folder);
    ~BeingLoaded();
    BeingLoaded(const BeingLoaded&) = delete;
    BeingLoaded& operator=(const BeingLoaded&) = delete;

  private:
    int folder_ = -1;
};

}  // namespace lcc
