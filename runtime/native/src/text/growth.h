// How much longer than a text its steps may make it.
#pragma once

#include <cstddef>

namespace lcc {

// Counts the bytes that steps have put in the place of others. A published tokenizer makes a text a
// few times as long; a damaged one, whose steps feed each other, could make a book of a line.
class Growth {
public:
    static constexpr std::size_t MOST = 256;         // times the text
    static constexpr std::size_t SLACK = 1 << 16;    // bytes

    void given(std::size_t bytes) { allowed_ += MOST * bytes; }

    // Throws Error (artifact): it is too much. Called before the bytes are there.
    void made(std::size_t bytes) {
        if (bytes > allowed_ - made_) {
            refuse();
        }
        made_ += bytes;
    }

private:
    [[noreturn]] static void refuse();

    std::size_t allowed_ = SLACK, made_ = 0;
};

}  // namespace lcc
